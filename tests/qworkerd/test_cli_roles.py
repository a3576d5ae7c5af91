"""Each subcommand as each kind of role: a viewer reads everything, an admin acts, and the owner alone grants."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import psycopg
import pytest
from click.testing import Result
from psycopg.conninfo import make_conninfo

from qworker import App
from qworker.registry import Registry
from qworker.rights import Kind
from qworkerd.cli.main import COMMANDS, main
from qworkerd.cli.subcommands import ListingGroup
from qworkerd.embedded import EmbeddedPostgres
from tests import roles
from tests.database import Database
from tests.qworkerd.conftest import Command
from tests.waiting import until

#: A word that stands for the id of a job in this state.
WAITING, FAILED = "WAITING", "FAILED"
#: A group of errors.
GROUP = f"{7:016x}"
#: What reads, and what acts, by hand; the words after it make it do so.
READS = {
    "audit": [], "cron": [], "cron list": [], "cron next": [], "jobs list": [], "jobs show": [WAITING],
    "jobs compare": [WAITING, FAILED],
    "queues": [], "queues list": [], "queues show": ["mail"],

    "workers": [], "workers list": [], "db status": [], "why": [WAITING],
    "top": [], "operations list": [], "operations show": ["1"], "queues stats": [], "stats": [],
    "errors": [], "errors list": [], "errors show": [GROUP], "jobs logs": [FAILED, "--follow"],
}  # fmt: skip
ACTS = {
    "jobs cancel": [WAITING], "jobs retry": [FAILED], "jobs discard": [FAILED], "queues pause": ["mail"],
    "queues resume": ["mail"], "cron pause": ["c"], "cron resume": ["c"], "cron run": ["report"],
    "enqueue": ["report", "{}"], "errors mute": [GROUP], "errors resolve": [GROUP], "errors reopen": [GROUP],
    "operations stop": ["1"], "jobs again": [FAILED], "jobs move": [WAITING, "--queue", "other"],
    "workers pause": ["n"], "workers resume": ["n"], "jobs run-now": [WAITING], "jobs stack": [WAITING],
    "errors retry": [GROUP, "--yes"], "errors discard": [GROUP, "--yes"],
}  # fmt: skip
OWNS = {"db grant": ["--role", "viewer", "--as", "worker"]}
#: What opens no connection, checks the privileges of its role, or changes a schema that is not as it should be.
OTHERS = {
    "check",
    "completion",
    "db maintain",
    "db migrate",
    "db repair",
    "db sql",
    "demo",
    "doctor",
    "init",
    "ping",
    "tasks list",
    "tasks show",
    "web",
    "web passwd",
    "web token",
}


def leaves(group: click.Group, path: str = "") -> Iterator[str]:
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from leaves(command, f"{path}{name} ")
            if command.invoke_without_command or isinstance(command, ListingGroup):
                yield f"{path}{name}"
        else:
            yield f"{path}{name}"


def test_every_subcommand_is_one_of_these() -> None:
    assert isinstance(main, click.Group)
    assert {path.split()[0] for path in leaves(main)} == set(COMMANDS)
    # Say to which of them a new subcommand belongs, so that it is run as each role.
    assert set(leaves(main)) == READS.keys() | ACTS.keys() | OWNS.keys() | OTHERS


@pytest.fixture(scope="module")
def guarded(postgres_server: EmbeddedPostgres) -> Iterator[Database]:
    with roles.guarded_database(postgres_server) as database:
        yield database


Run = Callable[[str, Kind, list[str]], Result]


@pytest.fixture
def run(guarded: Database, command: Command, shop: Path) -> Iterator[Run]:
    """Run a subcommand as a role, on a database with a job that waits, one that has failed, and a paused queue."""
    app = App(guarded.dsn)
    app.queue("paused").pause()
    made = [app.task(name="send", queue="mail")(lambda: None).enqueue() for _ in range(2)]
    with guarded.connect() as conn:
        conn.execute("INSERT INTO qworker.cron VALUES ('c', 'send', '* * * * *', 'UTC', NULL, DEFAULT, 1)")
        Registry().register(conn, name="n", version="1", queues=["mail"], worker_count=1, lease_seconds=30.0)
        conn.execute(
            "UPDATE qworker.job SET state = 'failed', failed_at = now(), fingerprint = 7 WHERE id = %s", [made[1].id]
        )
        conn.execute(
            "INSERT INTO qworker.error_group (fingerprint, count, first_seen, last_seen, first_job, state, task, type,"
            " queues, samples) VALUES (7, 1, now(), now(), %s, 'open', 'send', 'E', '{mail}', %s)",
            [made[1].id, [made[1].id]],
        )
    ids = {WAITING: str(made[0].id), FAILED: str(made[1].id)}
    app.close()

    shop.write_text(
        shop.read_text().replace('@app.task(name="report")', '@app.cron("@daily")\n@app.task(name="report")')
    )

    def run(path: str, kind: Kind, words: list[str]) -> Result:
        env = {"QWORKER_DSN": roles.login(guarded.dsn, kind), "QWORKER_APP": "shop:app"}
        # A connection that is only closed when its object is freed stays open for as long as a program likes.
        gc.disable()
        try:
            done = command(*path.split(), *(ids.get(word, word) for word in words), env=env)
            with guarded.connect() as conn:
                until(lambda: not sessions(conn))
        finally:
            gc.enable()
        return done

    yield run
    guarded.empty()


def sessions(conn: psycopg.Connection[Any]) -> list[Any]:
    """Return the sessions that commands have left."""
    return conn.execute(
        "SELECT application_name, usename FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name LIKE 'qworker%'"
    ).fetchall()


def permitted(done: Result) -> bool:
    """Return whether nothing was refused; there may be nothing to show or to do, which is exit status 1."""
    return done.exit_code in (0, 1) and "permission denied" not in done.stderr


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("path", READS)
def test_what_reads_runs_as_every_role_that_may_read(run: Run, path: str, kind: Kind) -> None:
    done = run(path, kind, READS[path])
    if kind is Kind.PRODUCER:
        assert done.exit_code == 78
        assert "privilege" in done.stderr or "permission denied" in done.stderr
    else:
        assert permitted(done), done.stderr


@pytest.mark.parametrize("kind", [Kind.PRODUCER, Kind.VIEWER, Kind.ADMIN])
@pytest.mark.parametrize("path", ACTS)
def test_what_acts_runs_as_an_admin(run: Run, path: str, kind: Kind) -> None:
    done = run(path, kind, ACTS[path])
    if kind is Kind.ADMIN or (kind, path) == (Kind.PRODUCER, "enqueue"):
        assert permitted(done), done.stderr
    else:
        assert done.exit_code == 78


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("path", OWNS)
def test_what_changes_the_schema_runs_as_the_owner_alone(run: Run, path: str, kind: Kind) -> None:
    assert run(path, kind, OWNS[path]).exit_code == 78


@pytest.mark.parametrize("read_only", [False, True])
def test_whoever_may_only_read_follows_what_is_stored_or_shown_to_others(guarded: Database, read_only: bool) -> None:
    dsn = roles.login(guarded.dsn, Kind.ADMIN if read_only else Kind.VIEWER)
    app = App(make_conninfo(dsn, options="-c default_transaction_read_only=on") if read_only else dsn)
    lines = '[{"event": "a", "level": "info"}]'
    with guarded.connect() as conn:
        ((job, claimed_at),) = conn.execute(
            "INSERT INTO qworker.job (task, state, attempt, token, node, claimed_at)"
            " VALUES ('send', 'running', 1, 1, 1, now()) RETURNING id, claimed_at"
        ).fetchall()
        found = app.admin.lines_after(job, follow=True)
        why = "the database is read-only" if read_only else "role 'viewer' may only read"
        assert why in str(found.problem)
        conn.execute(
            "INSERT INTO qworker.live_log (job, claimed_at, attempt, dropped, lines) VALUES (%s, %s, 1, 0, %s)",
            [job, claimed_at, lines],
        )
        found = app.admin.lines_after(job, found.cursor, follow=True)
        assert [[line.event for line in each.lines] for each in found.attempts] == [["a"]]
        assert found.problem is None
        app.admin.unfollow(job)
        assert conn.execute("SELECT count(*) FROM qworker.live_log").fetchall() == [(1,)], "that of somebody else"
    app.close()
    guarded.empty()
