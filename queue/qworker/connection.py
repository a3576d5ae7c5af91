"""Where the database is, and how the framework's own connections to it are set up."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import inf
from time import monotonic
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.json import Jsonb

from qworker import pooler
from qworker.errors import ConfigurationError

_DIALECT = re.compile(r"^(postgres(?:ql)?)\+\w+://")
# Up to the last @ of the word: a password may hold one that nobody encoded. Too much masked is better than too little.
# Every repetition is bounded, or a long text that looks almost like this would take minutes; tokens have 2,000 letters.
_URL_SECRET = re.compile(r"(?P<keep>\b\w[\w+.-]{0,30}://[^\s:/@]{0,200}:)(?:[^\s@]{0,4000}+@){1,50}+")
# password=..., PGPASSWORD=..., 'password': '...': bare, quoted as libpq does, or within somebody's repr of it.
_KEY_SECRET = re.compile(
    r"""(?P<keep>\b(?:PG|ssl)?passw(?:or)?d\\?['"]?\s{0,9}[=:]\s{0,9})"""
    r"""('(?:[^'\\]|\\.){0,4000}'|"(?:[^"\\]|\\.){0,4000}"|\\(['"]).{0,4000}?\\\3|(?:\\.|[^\s&\\])(?:\\.|[^\s&\\]){0,4000})""",
    re.IGNORECASE,
)

#: What makes a broken network an error within seconds instead of a hang of minutes (seconds, except milliseconds where
#: libpq wants them). A setting in the DSN wins.
_TRANSPORT: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}

# Sequential and bitmap scans are off: a statement planned while the queue was empty must still walk the index after
# 400,000 jobs have come. One generic plan serves for ever, whatever the statistics said.
_SETTINGS = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "timezone": "UTC",
    "idle_in_transaction_session_timeout": "60s",
    "client_connection_check_interval": "2s",
}

# What a statement may wait for in a pooler before a server has seen it (seconds): PgBouncer's query_wait_timeout.
_QUEUED = 120.0

# Commits are as durable as the server makes them, and never less than flushed: a token that came back after a crash
# would let a stale write pass. The session is left as it is where a pooler stands between, as it is somebody else's.
_SESSION: LiteralString = """
SELECT pg_backend_pid() <> %(pid)s AS pooled, current_setting('synchronous_commit') = 'off' AS hasty,
       (SELECT count(set_config(s.name, s.value, false))
          FROM (SELECT * FROM jsonb_each_text(%(settings)s)
                 UNION ALL
                SELECT 'synchronous_commit', 'on'
                 WHERE current_setting('synchronous_commit') = 'off') AS s (name, value)
         WHERE pg_backend_pid() = %(pid)s)
"""


T = TypeVar("T")


class Impatient(psycopg.Connection[Any]):
    """A connection that is closed when the server does not answer in time.

    A server that lives ends a statement at its own statement_timeout, and says so. Behind a proxy that has lost it,
    and goes on taking what is sent, no keepalive and no tcp_user_timeout ever tells.
    """

    #: How long to wait for an answer (seconds).
    patience = inf
    #: No answer came, and that is why it is closed.
    unanswered = False

    def wait(self, gen: PQGen[T], *args: Any, **options: Any) -> T:
        """Wait as psycopg does; raise OperationalError, and be closed, when no answer comes in time."""
        return super().wait(self._within(gen), *args, **options)

    def _within(self, gen: PQGen[T]) -> PQGen[T]:
        end = monotonic() + self.patience
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                # psycopg comes by ten times a second while nothing is heard.
                if not ready and monotonic() > end:
                    self.unanswered = True
                    self.close()
                    raise psycopg.OperationalError(
                        f"no answer for {self.patience:g} s: what the statement has done is not known"
                    )
                wanted = gen.send(ready)
        except StopIteration as stop:
            result: T = stop.value
            return result


@contextmanager
def waiting(connection: psycopg.Connection[Any], seconds: float) -> Iterator[None]:
    """Have a connection of ours wait for so long for each answer in the block, for ever if that is infinite."""
    if not isinstance(connection, Impatient):
        yield
        return
    patience, connection.patience = connection.patience, seconds
    try:
        yield
    finally:
        connection.patience = patience


def resolve_dsn(dsn: str | Callable[[], str] | None = None) -> str:
    """Return the connection string: given > $QWORKER_DSN > $DATABASE_URL > "" (libpq's own PG* variables).

    A callable is asked at each connect, so that rotated credentials are seen. "postgresql+psycopg://", as SQLAlchemy
    writes it, is understood.
    """
    given = dsn() if callable(dsn) else dsn
    text = given or os.environ.get("QWORKER_DSN") or os.environ.get("DATABASE_URL") or ""
    return _DIALECT.sub(r"\1://", text)


def redact(text: str) -> str:
    """Return the text with the passwords of connection strings replaced by ***."""
    return _KEY_SECRET.sub(r"\g<keep>***", _URL_SECRET.sub(r"\g<keep>***@", text))


def conninfo(dsn: str, role: str) -> str:
    """Complete a connection string with what every connection of ours carries.

    Raises ConfigurationError when libpq cannot read it; the message holds no password.
    """
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        msg = f"the DSN {redact(dsn)!r} is not readable: {redact(str(error)).strip()}"
        raise ConfigurationError(msg) from None
    return make_conninfo("", **{**_TRANSPORT, **given, "application_name": session_name(given, role)})


def session_name(given: Mapping[str, Any], role: str) -> str:
    """Return an application_name that ends in the role: by its end the sessions of a dead process are found.

    A name of the DSN's own stands before it; the server keeps 63 bytes in all.
    """
    name = str(given.get("application_name") or "qworker")
    return f"{name[: max(0, 62 - len(role))]} {role}"


def connect(
    dsn: str, role: str, *, statement_timeout: float = 30.0, lock_timeout: float = 5.0
) -> psycopg.Connection[tuple[Any, ...]]:
    """Open a connection for the framework's own statements: autocommit, and planned for queues.

    Timeouts are in seconds, 0 for none; when no answer comes for half as long again as a statement may take, the
    connection is closed. Raises psycopg.OperationalError when the server cannot be reached.
    """
    settings = _SETTINGS | {
        "statement_timeout": f"{int(statement_timeout * 1000)}ms",
        "lock_timeout": f"{int(lock_timeout * 1000)}ms",
    }
    connection = Impatient.connect(conninfo(dsn, role), autocommit=True)
    connection.patience = 1.5 * statement_timeout or inf
    # Planned once, used until the connection ends: five trial runs would each plan anew.
    connection.prepare_threshold = 0
    try:
        parameters = {"pid": connection.info.backend_pid, "settings": Jsonb(settings)}
        row = connection.execute(_SESSION, parameters, prepare=False).fetchone()
        pooled, hasty, _ = row or (True, False, 0)
        if pooled:
            connection.prepare_threshold = None
            connection.patience += _QUEUED
            pooler.bring(connection, settings | {"synchronous_commit": "on"} if hasty else settings)
    except BaseException:
        connection.close()
        raise
    return connection
