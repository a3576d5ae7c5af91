"""One PostgreSQL server for the session, databases on it, and a look at what tests leave running."""

import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Iterator

import psycopg
import pytest
import structlog
from hypothesis import Phase, settings
from pytest_postgresql import factories

from qworker import program
from qworkerd.embedded import EmbeddedPostgres
from qworkerd.log import pipeline, redaction
from tests import leftovers
from tests.database import Database

#: For those who want to know that a test fails, and not in how few words.
settings.register_profile("hasty", phases=[Phase.explicit, Phase.generate])

FOREIGN = ("QWORKER_", "PG", "NOTIFY_SOCKET", "WATCHDOG_", "DATABASE_URL", "MAX_CONCURRENT_JOBS", "JOB_TIMEOUT")


@pytest.fixture(scope="session", autouse=True)
def heard() -> None:
    """Hear the signals that a shell's `&` or nohup has ignored: the nodes under test would inherit the deafness."""
    for signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(autouse=True)
def no_timer_left() -> Iterator[None]:
    """Fail a test that leaves a timer: minutes later its SIGALRM would end the process, in another test."""
    yield
    if signal.setitimer(signal.ITIMER_REAL, 0) != (0.0, 0.0):
        pytest.fail("the test left a timer of this process (ITIMER_REAL)", pytrace=False)


@pytest.fixture(autouse=True)
def program_of_messages(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have messages name `qworker`: the Django project of other tests in this process has set its own program."""
    # Not the test's own monkeypatch, which would then be undone after its other fixtures.
    with pytest.MonkeyPatch.context() as patch:
        if "django" not in request.path.parts:
            patch.setattr(program, "_name", "qworker")
            patch.setattr(program, "_migrate", None)
        yield


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Undo what a command that a test runs in this process has done to logging: the next test would log through it."""
    root, logged = logging.getLogger(), structlog.is_configured()
    handlers, level, before = list(root.handlers), root.level, structlog.get_config()
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((sys, "excepthook"), (threading, "excepthook"), (sys, "unraisablehook")):
            patch.setattr(module, name, getattr(module, name))
        patch.setattr(pipeline, "_process", {})
        patch.setattr(pipeline, "_counting", None)
        yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    if logged:
        structlog.configure(**before)
    else:
        structlog.reset_defaults()


@pytest.fixture(autouse=True)
def passwords_forgotten() -> Iterator[None]:
    """Forget the passwords of a test: a word such as "secret" would be masked in all that later tests read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redaction, "_secrets", {})
        yield


@pytest.fixture(scope="session", autouse=True)
def nothing_left() -> Iterator[None]:
    """Run the session without settings of the caller's environment, and fail it if it leaves a process behind.

    When it is killed, what it has started is killed as well.
    """
    mark = secrets.token_hex(8)
    with pytest.MonkeyPatch.context() as patch, leftovers.watched(mark):
        for name in os.environ:
            if name.startswith(FOREIGN) and name != "QWORKER_PG_BINDIR":
                patch.delenv(name)
        patch.setenv(leftovers.MARK, mark)
        patch.setattr(EmbeddedPostgres, "inherited", EmbeddedPostgres.inherited | {leftovers.MARK})
        yield
        leftovers.wait(mark, seconds=5.0)
        if found := leftovers.kill(mark):
            lines = (f"{pid} {command}" for pid, command in found.items())
            pytest.fail("the tests left processes behind (killed now):\n" + "\n".join(lines), pytrace=False)


@pytest.fixture(scope="session")
def postgres_server(nothing_left: None) -> Iterator[EmbeddedPostgres]:
    """The server of the session; a test that stops or crashes one starts its own (0.5 s)."""
    with EmbeddedPostgres({"max_connections": 200}) as server:
        yield server


def migrate(host: str, port: int, user: str, dbname: str, password: str, autocommit: bool | None = None) -> None:
    """Bring the schema into pytest-postgresql's template database."""
    from qworker.migrations import migrate as apply

    with psycopg.connect(host=host, port=port, user=user, dbname=dbname, password=password) as conn:
        apply(conn)


postgresql_migrated = factories.postgresql_noproc(depends_on="postgres_server", dbname="qworker_test", load=[migrate])

#: A connection to a fresh migrated database, for tests of DDL, NOTIFY or advisory locks (0.1 s); others: `database`.
postgresql = factories.postgresql("postgresql_migrated")


@pytest.fixture(scope="session")
def shared_database(postgres_server: EmbeddedPostgres) -> Database:
    from qworker.migrations import migrate as apply

    database = Database.create(postgres_server, "qworker_shared")
    with psycopg.connect(database.dsn) as conn:
        apply(conn)
    return database


@pytest.fixture
def database(shared_database: Database) -> Iterator[Database]:
    """The session's migrated database, empty at the start of each test."""
    yield shared_database
    shared_database.empty()


@pytest.fixture
def empty_database(postgres_server: EmbeddedPostgres) -> Iterator[Database]:
    """A database of the test's own, without the schema."""
    database = Database.create(postgres_server, f"qworker_{secrets.token_hex(4)}")
    yield database
    database.drop(postgres_server)
