"""Whose schedule holds while releases that disagree about it run side by side."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qworker import App
from qworker.db.connection import connect
from qworker.registry import Registry
from qworker.schedules import StoredSchedules
from qworkerd.config.settings import Settings
from qworkerd.run import make_node
from qworkerd.scheduler.schedules import REDECLARE_INTERVAL, RETRY_AFTER_ERROR, RETRY_LOCKED_KEY, Schedules
from tests.database import Database
from tests.refusing import refusing


@pytest.fixture
def conn(database: Database) -> Iterator[Any]:
    with connect(database.dsn, "test") as conn:
        yield conn


@pytest.fixture
def node(conn: Any, database: Database) -> Callable[[App], Schedules]:
    def node(app: App) -> Schedules:
        """Start a node of an application, and let a day pass since its schedules were declared."""
        node = make_node(app, Settings(dsn=database.dsn, processes=1))
        node.table.header.node = Registry().register(
            conn, name="here", version="1", queues=["default"], worker_count=1, lease_seconds=30.0
        )
        cron = Schedules(node, StoredSchedules())
        cron.declare(conn)
        a_day_later(conn)
        return cron

    return node


def a_day_later(conn: Any) -> None:
    """Make every schedule due."""
    conn.execute(
        "UPDATE qworker.cron SET created_at = created_at - interval '1 day', last_tick = last_tick - interval '1 day'"
    )


@pytest.fixture
def release(conn: Any, database: Database) -> Callable[[str], Schedules]:
    def release(expression: str) -> Schedules:
        """Start a node of a release with this schedule."""
        app = App()
        app.cron(expression)(app.task(name="report")(lambda: None))
        node = make_node(app, Settings(dsn=database.dsn, processes=1))
        node.table.header.node = Registry().register(
            conn, name="here", version="1", queues=["default"], worker_count=1, lease_seconds=30.0
        )
        cron = Schedules(node, StoredSchedules())
        cron.enqueue(conn)
        return cron

    return release


def declared(conn: Any) -> list[str]:
    return [row[0] for row in conn.execute("SELECT expression FROM qworker.cron")]


def test_the_newest_release_wins_and_the_old_one_does_not_take_it_back(
    conn: Any, release: Callable[[str], Schedules]
) -> None:
    old = release("0 9 * * *")
    release("0 10 * * *")
    for _ in range(3):
        old.enqueue(conn)
    assert declared(conn) == ["0 10 * * *"]


def test_a_release_that_is_withdrawn_leaves_its_schedule_to_the_old_one(
    conn: Any, release: Callable[[str], Schedules]
) -> None:
    """Its last node is gone, and the nodes of the old release were never restarted: they have to tick again."""
    old = release("0 9 * * *")
    new = release("0 10 * * *")
    old.enqueue(conn)
    (now,) = conn.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    assert old.due_at <= now + REDECLARE_INTERVAL
    Registry().deregister(conn, new._node.table.header.node)
    old.enqueue(conn)
    assert declared(conn) == ["0 9 * * *"]
    conn.execute("UPDATE qworker.cron SET created_at = created_at - interval '1 day'")
    assert old.enqueue(conn) == 1


FACTS = (
    "SELECT j.task, queue, priority, tags, state::text, holds_key,"
    " round(extract(epoch FROM run_at - clock_timestamp())),"
    " round(extract(epoch FROM j.expires_at - clock_timestamp())), args, k.key, k.expires_at IS NULL"
    " FROM qworker.job AS j LEFT JOIN qworker.unique_key AS k ON k.job_id = j.id"
)


@pytest.mark.parametrize(
    "options",
    [
        {}, {"queue": "mail", "priority": 1, "tags": ["night", "mail"]}, {"delay": 3600}, {"expires": 7200},
        {"delay": 3600, "expires": 7200}, {"unique": True}, {"unique": "report"}, {"unique_for": 86400},
        {"unique": "report", "unique_for": 86400, "tags": ["x"], "delay": 60, "expires": 3600},
    ],
)  # fmt: skip
def test_the_job_of_a_tick_is_what_the_tasks_own_enqueue_would_make(
    conn: Any, database: Database, node: Callable[[App], Schedules], options: dict[str, Any]
) -> None:
    app = App(database.dsn)
    task = app.cron("* * * * *")(app.task(name="report", **options)(lambda: None))
    assert node(app).enqueue(conn) == 1
    ticked = conn.execute(FACTS).fetchall()
    conn.execute("TRUNCATE qworker.job, qworker.unique_key")
    task.enqueue()
    app.close()
    assert ticked == conn.execute(FACTS).fetchall()


def test_a_unique_task_that_is_still_unfinished_is_not_enqueued_again(
    conn: Any, node: Callable[[App], Schedules]
) -> None:
    """The tick is won all the same: it does not come later, nor on another node."""
    app = App()
    app.cron("* * * * *")(app.task(name="report", unique=True)(lambda: None))
    cron = node(app)
    assert cron.enqueue(conn) == 1
    (job,) = conn.execute("SELECT id FROM qworker.job").fetchone()
    a_day_later(conn)
    assert cron.enqueue(conn) == 0
    (skipped,) = conn.execute("SELECT last_tick > clock_timestamp() - interval '2 min' FROM qworker.cron").fetchone()
    assert skipped
    assert conn.execute("SELECT id FROM qworker.job").fetchall() == [(job,)]
    conn.execute("DELETE FROM qworker.job")
    a_day_later(conn)
    assert cron.enqueue(conn) == 1, "its key is taken over once the job is gone"


def test_a_period_of_uniqueness_counts_from_tick_to_tick(conn: Any, node: Callable[[App], Schedules]) -> None:
    app = App()
    app.cron("* * * * *")(app.task(name="report", unique_for=3600)(lambda: None))
    cron = node(app)
    assert cron.enqueue(conn) == 1
    conn.execute("DELETE FROM qworker.job")
    a_day_later(conn)
    assert cron.enqueue(conn) == 0
    conn.execute("UPDATE qworker.unique_key SET expires_at = clock_timestamp()")
    a_day_later(conn)
    assert cron.enqueue(conn) == 1


def test_a_key_in_an_open_transaction_holds_up_its_own_tick_alone_and_does_not_lose_it(
    conn: Any, database: Database, node: Callable[[App], Schedules]
) -> None:
    app = App()
    report = app.cron("* * * * *")(app.task(name="report", unique=True)(lambda: None))
    app.cron("* * * * *")(app.task(name="tidy")(lambda: None))
    cron = node(app)
    conn.execute("SET lock_timeout = '100ms'")
    other = database.connect()
    with other.transaction(force_rollback=True):
        report.using(other).enqueue()
        assert cron.enqueue(conn) == 1
        assert conn.execute("SELECT task FROM qworker.job").fetchall() == [("tidy",)]
        (now,) = conn.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
        assert cron.due_at <= now + RETRY_LOCKED_KEY
    assert cron.enqueue(conn) == 1
    assert conn.execute("SELECT task FROM qworker.job ORDER BY id").fetchall() == [("tidy",), ("report",)]


def test_a_tick_that_met_an_error_is_tried_again_soon(
    conn: Any, database: Database, node: Callable[[App], Schedules]
) -> None:
    app = App(database.dsn)
    app.cron("0 0 1 1 *")(app.task(name="report")(lambda: None))
    cron = node(app)
    conn.execute("UPDATE qworker.cron SET created_at = created_at - interval '400 days'")
    with refusing(database.connect(), "INSERT", "true"):
        assert cron.enqueue(conn) == 0
    (now,) = conn.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    assert now < cron.due_at <= now + RETRY_AFTER_ERROR
    assert cron.enqueue(conn) == 1
    assert cron.due_at > now + RETRY_AFTER_ERROR
    app.close()


def test_a_schedule_that_could_not_be_declared_is_declared_later(
    conn: Any, database: Database, node: Callable[[App], Schedules], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App(database.dsn)
    app.cron("* * * * *")(app.task(name="report")(lambda: None))
    conn.execute("SET lock_timeout = '50ms'")
    other = database.connect(autocommit=False)
    other.execute(
        "INSERT INTO qworker.cron (name, task, expression, timezone, declared_by) VALUES ('report', 'x', 'x', 'x', 0)"
    )
    cron = node(app)
    assert declared(conn) == []
    other.rollback()
    cron.enqueue(conn)
    assert cron.due_at == 0.0, "the next look asks again"
    assert declared(conn) == [], "not with every look"
    monkeypatch.setattr("qworkerd.scheduler.periodic.monotonic", lambda: float("inf"))
    cron.enqueue(conn)
    assert declared(conn) == ["* * * * *"]
    assert cron.due_at > 0.0


def test_a_schedule_that_somebody_has_deleted_is_declared_again(
    conn: Any, database: Database, node: Callable[[App], Schedules], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App(database.dsn)
    app.cron("* * * * *")(app.task(name="report")(lambda: None))
    cron = node(app)
    cron.enqueue(conn)
    conn.execute("DELETE FROM qworker.cron")
    monkeypatch.setattr("qworkerd.scheduler.periodic.monotonic", lambda: float("inf"))
    cron.enqueue(conn)
    cron.enqueue(conn)
    assert declared(conn) == ["* * * * *"]


def paused_app(misfire: Any = "once") -> App:
    app = App("")
    app.cron("* * * * *", misfire=misfire)(app.task(name="report")(lambda: None))
    return app


def test_a_paused_schedule_does_not_tick_and_the_ticks_of_the_pause_are_not_made_up_for(
    conn: Any, node: Callable[[App], Schedules]
) -> None:
    cron, stored = node(paused_app("all")), StoredSchedules()
    assert stored.pause(conn, ["report", "unknown"], "too early") == ["report"]
    assert stored.pause(conn, ["report"], "again") == []
    assert cron.enqueue(conn) == 0
    now = conn.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()[0]
    assert now < cron.due_at <= now + 60
    assert stored.resume(conn, ["report"]) == ["report"]
    assert stored.resume(conn, ["report"]) == []
    assert cron.enqueue(conn) == 0
    conn.execute("UPDATE qworker.cron SET resumed_at = resumed_at - interval '61 s'")
    assert cron.enqueue(conn) >= 1


def test_a_pause_outlives_declarations_and_is_not_deleted(conn: Any, node: Callable[[App], Schedules]) -> None:
    node(paused_app())
    StoredSchedules().pause(conn, ["report"], "why")
    assert node(paused_app()).enqueue(conn) == 0
    conn.execute("DELETE FROM qworker.node")
    conn.execute(
        "UPDATE qworker.cron SET declared_at = now() - interval '1 year', created_at = now() - interval '1 year',"
        " last_tick = now() - interval '1 year'"
    )
    assert StoredSchedules().delete_unused(conn) == 0
    found = conn.execute("SELECT paused_at IS NOT NULL, pause_reason FROM qworker.cron").fetchall()
    assert found == [(True, "why")]
    StoredSchedules().resume(conn, ["report"])
    assert StoredSchedules().delete_unused(conn) == 1


def test_a_tick_that_was_read_before_the_pause_is_not_enqueued(conn: Any, node: Callable[[App], Schedules]) -> None:
    cron, stored = node(paused_app()), StoredSchedules()
    (found,) = stored.find(conn, ["report"])
    stored.pause(conn, ["report"])
    spec, key = cron._specs["report"]
    tick = stored.tick(conn, spec, key, name="report", tick=found.at - 60, expression="* * * * *", timezone="UTC")
    assert tick is None
