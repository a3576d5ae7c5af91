"""The transaction of a test: jobs are enqueued, run and looked at in it, and are gone when it is rolled back."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from importlib import import_module
from time import monotonic
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from qworker import App
from qworker.db.adapters import Connection, unwrap
from qworker.db.drivers import Caller, rows
from qworker.db.statements import load
from qworker.errors import InvalidOperation
from qworkerd.outcomes.outcome import Session

#: When this module was imported (monotonic seconds), and how long before that the tests may have enqueued jobs.
_IMPORTED, _ALLOWANCE = monotonic(), 60.0
#: The number up to which jobs are counted for a message.
_SHOWN = 100


@contextmanager
def join(app: App, conn: Any) -> Iterator[None]:
    """Let the application enqueue and look at jobs on this connection by default, as in Django's atomic().

    conn is what `Task.using` takes: a psycopg Connection, a SQLAlchemy Session or Connection, or a Django alias. After
    the code under test has committed a Session, jobs join its next transaction. Raises InvalidOperation if jobs wait
    in the database that are older than this process, because `drain` would run them.
    """
    refuse_earlier_jobs(app, unwrap(conn))  # or raises TypeError
    with bind(app, conn):
        yield


@contextmanager
def bind(app: App, conn: Any) -> Iterator[None]:
    """Do the same on a connection that was checked."""
    before, app.ambient.bound = app.ambient.bound, conn
    try:
        yield
    finally:
        app.ambient.bound = before


def refuse_earlier_jobs(app: App, caller: Caller) -> None:
    """Raise InvalidOperation if jobs wait that were enqueued before this process was started."""
    age = monotonic() - _IMPORTED + _ALLOWANCE
    with app.pool.connection(caller) as database:
        ((count, name),) = rows(database, load("testing", app.schema)["earlier"], {"age": age})
    if count:
        raise InvalidOperation(
            f"in the database {name!r} {count if count < _SHOWN else f'{_SHOWN} or more'} jobs wait that are older "
            "than this process, and drain() would run them: let tests use a database of their own, as that of the "
            "fixture qworker_dsn; if this is one, and an earlier session has left them, call truncate(app)"
        )


class _Undo(Exception):
    """Rolls back a savepoint."""


class Savepoint:
    """The savepoint of one job."""

    def __init__(self) -> None:
        #: Set it to roll back at the end.
        self.undone = False

    def check(self, database: Connection) -> None:
        """Raise what rolls back, if the attempt has failed, or the server would refuse to go on."""
        if self.undone or database.pgconn.transaction_status == TransactionStatus.INERROR:
            raise _Undo


class TestTransaction:
    """The connection on which jobs are run, and savepoints around them."""

    __test__ = False  # not a test class

    def __init__(self, using: Any, database: Connection) -> None:
        self.database = database
        self._using = using

    @contextmanager
    def savepoint(self) -> Iterator[Savepoint]:
        """Open a savepoint, or a transaction if there is none."""
        savepoint = Savepoint()
        with suppress(_Undo), self._layer():
            yield savepoint
            savepoint.check(self.database)

    def kept_open(self) -> AbstractContextManager[Any]:
        """Return a context in which hooks, too, which run after the savepoint, do not close Django's connection."""
        alias = self._using if isinstance(self._using, str) else _alias(self.database)
        return nullcontext() if alias is None else _kept_open(import_module("django.db").connections[alias])

    def _layer(self) -> AbstractContextManager[Any]:
        """Return a savepoint of the library that manages the transaction, so that it knows of it."""
        using = self._using
        if hasattr(using, "begin_nested"):
            return _nested(using)
        alias = using if isinstance(using, str) else _alias(self.database)
        return self.database.transaction() if alias is None else _atomic(alias)

    @contextmanager
    def plain(self) -> Iterator[Connection]:
        """Return the connection with rows as tuples, which its user may have changed."""
        conn = self.database
        before = conn.row_factory, conn.cursor_factory
        conn.row_factory, conn.cursor_factory = tuple_row, psycopg.Cursor
        try:
            yield conn
        finally:
            conn.row_factory, conn.cursor_factory = before


class JobConnections:
    """Gives handlers the test's own connection as `current_job.connection`; its savepoint belongs to the job."""

    def __init__(self, database: Connection) -> None:
        self._database = database
        self.lost: Session | None = None

    def open(self) -> Connection:
        """Return the connection."""
        return self._database

    def open_transaction(self) -> Connection:
        """Return the same; its end is that of the savepoint."""
        return self._database

    def finish(
        self, connection: Connection, *, commit: bool, before_commit: Callable[[], bool] | None = None
    ) -> Exception | None:
        """Write the end of a transactional job; return the error, if any."""
        if not commit:
            return None
        if connection.pgconn.transaction_status == TransactionStatus.INERROR:
            return psycopg.errors.InFailedSqlTransaction(
                "the handler has caught a database error and returned: the server rolls back the transaction"
            )
        try:
            if before_commit is not None:
                before_commit()
        except psycopg.Error as error:
            return error
        return None


@contextmanager
def _nested(using: Any) -> Iterator[None]:
    """Open a savepoint of SQLAlchemy; a handler may have ended it by a commit of its own."""
    nested = using.begin_nested()
    try:
        yield
    except BaseException:
        if nested.is_active:
            nested.rollback()
        raise
    if nested.is_active:
        nested.commit()


@contextmanager
def _atomic(alias: str) -> Iterator[None]:
    """Open a savepoint of Django, and then call what the handler has left for the commit, which a test never sees."""
    django: Any = import_module("django.db")
    wrapper = django.connections[alias]
    count = len(wrapper.run_on_commit)
    block = django.transaction.atomic(using=alias)
    block._from_testcase = True  # noqa: SLF001 - as a TestCase marks its own, for `durable=True` in handlers
    with block, _kept_open(wrapper):
        yield
    while len(wrapper.run_on_commit) > count:
        wrapper.run_on_commit.pop(count)[1]()


@contextmanager
def _kept_open(wrapper: Any) -> Iterator[None]:
    """Let a handler close its connections, as many do at their start and end, without closing the test's."""
    names = "close", "close_if_unusable_or_obsolete"
    before = {name: vars(wrapper)[name] for name in names if name in vars(wrapper)}
    vars(wrapper).update(dict.fromkeys(names, lambda: None))
    try:
        yield
    finally:
        for name in names:
            del vars(wrapper)[name]
        vars(wrapper).update(before)


def _alias(database: Connection) -> str | None:
    """Return the alias of the Django database whose connection this is."""
    django = sys.modules.get("django.db")
    settings = getattr(sys.modules.get("django.conf"), "settings", None)
    if django is None or settings is None or not settings.configured:
        return None
    for wrapper in django.connections.all(initialized_only=True):
        if wrapper.connection is database:
            return str(wrapper.alias)
    return None


def connection(app: App, using: Any) -> AbstractContextManager[Connection]:
    """Return the connection of a test: the one that it names, that of its transaction, or one of the pool."""
    caller = unwrap(using) if using is not None else app.ambient.caller()
    if caller is None:
        return app.pool.connection()
    if isinstance(caller, psycopg.Connection):
        return nullcontext(caller)
    raise TypeError(
        "drain() needs a connection of psycopg 3, as a worker does: in tests, write the URL as postgresql+psycopg://..."
    )
