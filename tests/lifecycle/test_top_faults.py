"""`qworker top` when something is wrong: lost databases, missing rights, hostile names, rows that go, many queues."""

import gc
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from textual.app import ScreenStackError

from qworker import App, JobState
from qworkerd.embedded import EmbeddedPostgres
from tests.database import Database
from tests.lifecycle.proxy import Proxy
from tests.lifecycle.screen import Screen, drive, top
from tests.roles import guarded_database, login
from tests.waiting import until

HOSTILE = "\x1b[2J\x1b]0;x\x07[red]boo[/red]\u202etxt.exe\r\n漢字\u0301"
#: 3,000 take minutes on a loaded machine.
REFRESHES = int(os.environ.get("QWORKER_TEST_REFRESHES", "600"))
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'qworker client' AND pid <> pg_backend_pid()"


@pytest.fixture(scope="module")
def guarded(postgres_server: EmbeddedPostgres) -> Iterator[Database]:
    with guarded_database(postgres_server) as database:
        yield database


def enqueue(dsn: str, count: int = 1, queue: str = "default", task: str = "work") -> list[int]:
    """Enqueue jobs that no node runs."""
    app = App(dsn)
    with closing(app):
        return app.task(name=task, queue=queue)(lambda _n: None).enqueue_many([(n,) for n in range(count)], ids=True)


def set_state(database: Database, state: JobState) -> None:
    database.connect().execute(
        "UPDATE qworker.job SET state = %s, failed_at = now(), claimed_at = now(), token = 1", [state.value]
    )


@pytest.mark.parametrize("how", ["refuse", "forget", "hold"])
def test_a_lost_database_is_named_and_what_was_read_stays(database: Database, how: str) -> None:
    enqueue(database.dsn, 3)

    async def scenario(screen: Screen) -> None:
        await screen.press("2")
        await screen.shows("default", "1 of 1")
        getattr(proxy, how)()
        shown = await screen.shows("database", "default", seconds=25)
        assert "no connection" in shown or "no answer" in shown or "closed the connection" in shown
        await screen.press("3", "2", "question_mark")  # the keys still work
        await screen.shows("Choose")
        await screen.press("escape")
        proxy.flow()
        await screen.until(lambda: screen.app.problem is None and not screen.app.query_one("#banner").display, 40)
        enqueue(database.dsn, 1, "later")
        await screen.shows("later", "1 of 2")

    with Proxy(database.dsn) as proxy:
        drive(top(proxy.dsn), scenario)


def test_it_survives_a_restart_of_the_server(tmp_path: Path) -> None:
    from qworker.migrations import migrate

    async def scenario(screen: Screen) -> None:
        await screen.shows("Jobs")
        server.stop()
        await screen.until(lambda: screen.app.problem is not None)
        server.start()
        await screen.until(lambda: screen.app.problem is None, 40)

    with EmbeddedPostgres() as server:
        with psycopg.connect(server.dsn) as conn:
            migrate(conn)
        drive(top(server.dsn), scenario)


def test_a_key_does_not_hit_the_neighbour_of_a_row_that_has_just_gone(database: Database) -> None:
    first, second = enqueue(database.dsn, 2)
    set_state(database, JobState.RUNNING)
    conn = database.connect()

    async def scenario(screen: Screen) -> None:
        await screen.press("3")
        await screen.shows(str(first), str(second), "1 of 2")
        conn.execute("DELETE FROM qworker.job WHERE id = %s", [first])
        await screen.shows("1 of 1")
        await screen.press("C")
        await screen.shows("has just gone: nothing was done")
        table = screen.app.table
        assert table is not None
        await screen.until(lambda: not table.gone)
        await screen.press("C")
        await screen.shows(f"job {second} is running: its cancellation is requested")

    drive(top(database.dsn), scenario)


def test_an_action_on_a_job_that_has_ended_says_so(database: Database) -> None:
    (job,) = enqueue(database.dsn)
    set_state(database, JobState.FAILED)
    conn = database.connect()

    async def scenario(screen: Screen) -> None:
        await screen.press("4", "f")
        await screen.shows("1 of 1")
        await screen.press("space")  # what is shown is old from now on
        await screen.shows("refresh stopped")
        app = App(database.dsn)
        app.admin.discard(job)
        app.close()
        await screen.press("R")
        await screen.shows(f"job {job} is discarded: only failed jobs can be retried")
        conn.execute("TRUNCATE qworker.job_history")
        await screen.until(lambda: screen.app.table is not None and not screen.app.table.rows)

    drive(top(database.dsn), scenario)


def test_two_screens_that_act_at_once_do_it_once(database: Database) -> None:
    jobs = enqueue(database.dsn, 40)
    set_state(database, JobState.FAILED)

    async def scenario(screen: Screen) -> None:
        await screen.press("4", "f")
        await screen.shows("1 of 40")
        await screen.press("A", "R", "R", "D")
        await screen.until(lambda: screen.app.table is not None and not screen.app.table.rows)

    drive(top(database.dsn), scenario)
    app = App(database.dsn)
    states = {app.job(job).state for job in jobs}
    acted = [entry.jobs for entry in app.admin.audit()]
    app.close()
    assert states <= {JobState.AVAILABLE, JobState.DISCARDED}
    assert sum(count or 0 for count in acted) == len(jobs)


@pytest.mark.parametrize(("role", "read_only"), [("viewer", False), ("admin", True)])
def test_who_may_only_look_is_told_so(guarded: Database, role: str, read_only: bool) -> None:
    dsn = login(guarded.dsn, role)
    enqueue(guarded.dsn, 2)
    set_state(guarded, JobState.FAILED)
    refusal = "--read-only" if read_only else "not permitted"

    async def scenario(screen: Screen) -> None:
        for key in "1234567":
            await screen.press(key)
            await screen.until(lambda: screen.app.frame is not None)
            assert screen.app.problem is None
        await screen.press("4", "f")
        await screen.shows("of 2")
        for key in "RDC":
            await screen.press(key)
            await screen.shows(refusal)
        await screen.press("2", "p")
        await screen.shows("Reason")
        await screen.press("enter")
        await screen.shows(refusal)

    drive(top(dsn, read_only=read_only), scenario, size=(120, 30))
    with psycopg.connect(guarded.dsn, autocommit=True) as conn:
        assert conn.execute("SELECT count(*), min(state::text) FROM qworker.job").fetchone() == (2, "failed")
        assert conn.execute("SELECT count(*) FROM qworker.audit WHERE action ~ '^(job|queue)'").fetchone() == (0,)
    guarded.empty()


def test_the_reader_cannot_write(database: Database) -> None:
    from qworkerd.top.reading import Reader

    reader = Reader(App(database.dsn).admin.pool, [])
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        reader.admin.pause("default")
    reader.close()


@pytest.mark.parametrize("size", [(40, 10), (80, 24), (200, 60)], ids=str)
def test_hostile_names_are_shown_and_harm_nothing(database: Database, size: tuple[int, int]) -> None:
    (job,) = enqueue(database.dsn)
    conn = database.connect()
    error = {"type": HOSTILE, "message": HOSTILE, "attempt": 1, "traceback": f"Traceback\n  {HOSTILE * 50}"}
    conn.execute(
        "UPDATE qworker.job SET queue = %s, task = %s, state = 'failed', failed_at = now(), args = %s, errors = %s",
        [HOSTILE, HOSTILE, psycopg.types.json.Jsonb({HOSTILE: [HOSTILE] * 20}), psycopg.types.json.Jsonb([error])],
    )

    async def scenario(screen: Screen) -> None:
        def check() -> None:
            text = screen.text
            assert not set(text) & set("\x1b\x07\u202e\r")
            assert all(strip.cell_length == size[0] for strip in screen.app.screen._compositor.render_strips())

        for key in "1234567":
            await screen.press(key)
            await screen.pilot.pause(0.3)
            check()
        await screen.press("4", "f")
        await screen.shows("1 of 1")
        check()
        await screen.press("enter")
        await screen.shows(f"Job {job}")
        check()
        await screen.press("escape", "2", "p")
        await screen.shows("Reason")
        check()

    drive(top(database.dsn), scenario, size=size)


def test_it_follows_the_size_of_the_terminal(database: Database) -> None:
    enqueue(database.dsn, 30)
    set_state(database, JobState.FAILED)

    async def scenario(screen: Screen) -> None:
        await screen.press("4", "f", "G")
        await screen.shows("30 of 30")
        for width, height in ((40, 10), (200, 60), (20, 5), (3, 2), (100, 30)):
            await screen.pilot.resize_terminal(width, height)
            await screen.pilot.pause(0.1)
            assert len(screen.lines) == height
        table = screen.app.table
        assert table is not None
        assert table.cursor == 29
        await screen.shows("30 of 30")

    drive(top(database.dsn), scenario)


def test_a_refresh_in_the_last_moment_raises_nothing(database: Database) -> None:
    app = top(database.dsn)

    async def scenario(screen: Screen) -> None:
        await screen.shows("Overview")

    drive(app, scenario)
    assert not app.screen_stack
    app._tick()
    with pytest.raises(ScreenStackError):
        app._base  # noqa: B018


def test_ten_thousand_queues_do_not_slow_it_down(database: Database) -> None:
    conn = database.connect()
    conn.execute(
        "INSERT INTO qworker.job (queue, task) SELECT 'queue-' || lpad(n::text, 5, '0'), 'work'"
        " FROM generate_series(1, 10000) AS s (n)"
    )

    async def scenario(screen: Screen) -> None:
        await screen.press("2")
        await screen.shows("queue-00001", "1 of 10,000")
        await screen.press("G")
        await screen.shows("queue-10000", "10,000 of 10,000")
        await screen.press("slash")
        await screen.type("queue:queue-0777*")
        await screen.press("enter")
        await screen.shows("1 of 10", "queue-07770")

    drive(top(database.dsn, interval=1.0), scenario)


def memory() -> int:
    """Return the resident memory of this process (bytes)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.timeout(600)
def test_refreshes_leave_memory_and_connections_as_they_were(database: Database) -> None:
    enqueue(database.dsn, 100)
    set_state(database, JobState.FAILED)
    conn = database.connect()
    measured: list[tuple[int, Any]] = []

    async def scenario(screen: Screen) -> None:
        frames = 0
        for each in range(30):
            await screen.press(str(each % 7 + 1))
            for _ in range(REFRESHES // 30):
                before = screen.app.frame
                screen.app.read_now()
                await screen.until(lambda before=before: screen.app.frame is not before)  # type: ignore[misc]
                frames += 1
            if each in (9, 29):
                gc.collect()
                measured.append((memory(), conn.execute(SESSIONS.encode()).fetchone()))
        assert frames == REFRESHES

    drive(top(database.dsn), scenario)
    (early, sessions), (late, later_sessions) = measured
    assert late - early < 8_000_000
    assert sessions == later_sessions
    until(lambda: (conn.execute(SESSIONS.encode()).fetchone() or (None,))[0] == 0)
