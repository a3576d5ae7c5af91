"""Pausing and resuming queues: what is stored, and what is said about it."""

import getpass
import socket
from datetime import UTC, datetime, timedelta

import pytest
from psycopg.conninfo import make_conninfo

from qworker import App, JobState, overview
from qworker.actor import MAX_NOTE
from qworker.db.connection import connect
from qworker.depth import Depths
from qworker.options import PRIORITIES
from qworker.queues import QueuePause
from qworker.registry import Registry
from tests.database import Database
from tests.qworker.conftest import FakeWorker, Query


def test_a_pause_is_stored_once_with_its_time_author_and_reason(app: App) -> None:
    queue = app.queue("emails")

    def pauses() -> list[QueuePause]:
        return app.admin.paused("emails")

    assert pauses() == []
    assert queue.pause(reason="upstream down")
    assert not queue.pause(reason="another", by="bob")
    (pause,) = pauses()
    assert queue.paused == pause
    assert (pause.by, pause.reason) == (f"{getpass.getuser()}@{socket.gethostname()}", "upstream down")
    assert abs(datetime.now(UTC) - pause.at) < timedelta(seconds=60)
    assert str(pause).endswith(f"by {pause.by}: upstream down")
    assert queue.resume()
    assert not queue.resume()
    assert pauses() == []
    assert queue.pause(by="bob")
    assert [(pause.by, pause.reason) for pause in pauses()] == [("bob", None)]


def test_several_queues_are_paused_by_one_statement_and_only_the_changed_ones_are_returned(app: App) -> None:
    assert app.admin.pause("b") == ["b"]
    assert app.admin.pause("c", "b", "a", "a") == ["a", "c"]
    assert [pause.queue for pause in app.admin.paused()] == ["a", "b", "c"]
    assert [pause.queue for pause in app.admin.paused("c", "d")] == ["c"]
    assert app.admin.resume("d", "c", "a") == ["a", "c"]
    assert app.admin.pause() == app.admin.resume() == []


@pytest.mark.parametrize(
    "wrong",
    [{"queue": "a,b"}, {"queue": " a"}, {"queue": ""}, {"queue": "x" * 201}, {"queue": "a\n"},
     {"reason": "x" * (MAX_NOTE + 1)}, {"reason": "two\nlines"}, {"by": "x" * 201}],
)  # fmt: skip
def test_what_no_queue_can_be_called_is_refused(app: App, wrong: dict[str, str]) -> None:
    queue = wrong.pop("queue", "emails")
    with pytest.raises(ValueError, match=r"queue|reason|by"):
        app.queue(queue).pause(**wrong)
    assert app.admin.paused() == []


def test_a_queue_that_is_paused_is_listed_without_jobs_and_one_that_was_resumed_is_not(app: App) -> None:
    app.admin.pause("emails", "reports", reason="no reason")
    app.admin.resume("reports")
    (found,) = app.admin.queues()
    assert (found.name, found.jobs, found.nodes) == ("emails", {}, ())
    assert found.paused is not None
    assert found.paused.reason == "no reason"


def test_wait_says_that_the_queue_of_the_job_is_paused(app: App, fake_worker: FakeWorker) -> None:
    task = app.task(name="send", queue="emails")(lambda: None)
    first, second = task.enqueue(), task.options(delay=60).enqueue()
    fake_worker.claim("emails")
    app.queue("emails").pause(reason="upstream down", by="alice")
    with pytest.raises(TimeoutError, match=f"^job {first.id} is still running after 0 s$"):
        first.wait(timeout=0)
    with pytest.raises(TimeoutError) as caught:
        second.wait(timeout=0)
    message = str(caught.value)
    assert message.startswith(f"job {second.id} is still scheduled after 0 s: queue 'emails' is paused since ")
    assert message.endswith("by alice: upstream down; resume it with `qworker queues resume emails`")


def test_wait_says_that_no_live_node_serves_the_queue_of_the_job(
    app: App, database: Database, fake_worker: FakeWorker
) -> None:
    task = app.task(name="send", queue="e mails")(lambda: None)
    running, waiting, later = task.enqueue(), task.enqueue(), task.options(delay=60).enqueue()
    fake_worker.claim("e mails")
    conn = database.connect()
    registry = Registry()
    other = registry.register(conn, name="n", version="1", queues=["default"], worker_count=1, lease_seconds=30.0)
    hint = "no live node serves queue 'e mails'; start one with `qworker --queues 'e mails'`"
    for job, expected in ((running, ""), (waiting, hint), (later, hint)):
        with pytest.raises(TimeoutError) as caught:
            job.wait(timeout=0)
        assert (hint in str(caught.value)) is bool(expected)
    conn.execute("UPDATE qworker.node SET queues = ARRAY['default', 'e mails'] WHERE id = %s", [other])
    with pytest.raises(TimeoutError, match=r"still available after 0 s$"):
        waiting.wait(timeout=0)
    app.admin.pause_nodes(other)
    hint = f"all live nodes that serve queue 'e mails' are paused; resume it with `qworker workers resume {other}`"
    with pytest.raises(TimeoutError, match=hint):
        waiting.wait(timeout=0)
    conn.execute("UPDATE qworker.node SET heartbeat_at = heartbeat_at - interval '31 s'")
    with pytest.raises(TimeoutError, match="no live node serves queue"):
        waiting.wait(timeout=0)


def test_wait_does_not_fail_if_the_role_may_not_read_the_settings_of_queues(app: App, database: Database) -> None:
    job = app.task(name="send")(lambda: None).enqueue()
    app.queue("default").pause()
    conn = database.connect()
    conn.execute("CREATE ROLE reader LOGIN PASSWORD 'pw'")
    try:
        conn.execute("GRANT USAGE ON SCHEMA qworker TO reader")
        conn.execute("GRANT SELECT ON qworker.job, qworker.job_history TO reader")
        reader = App(make_conninfo(database.dsn, user="reader", password="pw"))
        with pytest.raises(TimeoutError, match=r"is still available after 0 s$"):
            reader.admin.wait(job.id, 0)
        reader.close()
    finally:
        conn.execute("DROP OWNED BY reader")
        conn.execute("DROP ROLE reader")


def test_an_idle_node_is_not_woken_for_paused_queues(app: App, database: Database, query: Query) -> None:
    registry, conn = Registry(), database.connect()
    node = registry.register(conn, name="n", version="1", queues=["a", "b"], worker_count=1, lease_seconds=30.0)
    for paused, listed in (([], [["a", "b"]]), (["a"], [["b"]]), (["b", "a"], [])):
        registry.set_idle(conn, node, idle=True, paused=paused)
        assert [row[0] for row in query("SELECT queues FROM qworker.idle_node")] == listed
        registry.set_idle(conn, node, idle=False)


def test_in_a_paused_queue_only_a_running_job_is_work_for_burst(
    app: App, fake_worker: FakeWorker, database: Database
) -> None:
    registry, conn = Registry(), database.connect()
    task = app.task(name="send", queue="a")(lambda: None)
    task.enqueue()
    task.enqueue()
    assert registry.unfinished(conn, ["a"], PRIORITIES)
    assert not registry.unfinished(conn, ["a", "b"], PRIORITIES, ["a"])
    running = fake_worker.claim("a")
    assert running is not None
    assert registry.unfinished(conn, ["a", "b"], PRIORITIES, ["a"])
    fake_worker.retry(running, delay=60)
    assert registry.unfinished(conn, ["a"], PRIORITIES)
    assert not registry.unfinished(conn, ["a"], PRIORITIES, ["a"])


def test_of_a_large_table_the_numbers_are_estimates_and_small_queues_are_counted(
    app: App, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    conn = database.connect()
    conn.execute(
        "INSERT INTO qworker.job (task, queue, state, run_at, failed_at, token, node, claimed_at)"
        " SELECT 'send', q, s::qworker.job_state, now(), now(), 1, 1, now() FROM generate_series(1, 20000) AS n,"
        " LATERAL (SELECT CASE WHEN n % 1000 = 0 THEN 'rare' ELSE 'bulk' END AS q,"
        "                 CASE WHEN n % 4 = 3 THEN 'failed' WHEN n = 10 THEN 'running' ELSE 'available' END AS s) AS s"
    )
    exact = app.admin.queues()
    assert all(queue.exact for queue in exact)
    assert exact[1].jobs == {JobState.AVAILABLE: 20}
    monkeypatch.setattr(overview, "EXACT", 10)
    monkeypatch.setattr(overview, "SAMPLED", 100)
    monkeypatch.setattr(overview, "WALK_TIMEOUT", 30.0)
    bulk, rare = app.admin.queues()
    assert not bulk.exact
    assert rare.jobs == {JobState.AVAILABLE: 20}
    assert bulk.jobs[JobState.RUNNING] == 1
    for state in (JobState.AVAILABLE, JobState.FAILED):
        assert bulk.jobs[state] == pytest.approx(exact[0].jobs[state], rel=0.4)
    with connect(database.dsn, "node") as sampling:
        Depths().sample(sampling, queues=["rare"], priorities=[5], watermarks=[0])
    conn.execute("UPDATE qworker.depth SET available = 21, oldest = 300, running = 1 WHERE queue = 'rare'")
    monkeypatch.setattr(overview, "WALK_TIMEOUT", 0.001)
    bulk, rare = app.admin.queues()
    assert not rare.exact
    assert rare.jobs == {JobState.AVAILABLE: 21, JobState.RUNNING: 1}, "what the nodes have sampled"
    assert rare.oldest_age == pytest.approx(300, abs=60)
    assert bulk.jobs[JobState.AVAILABLE] == pytest.approx(exact[0].jobs[JobState.AVAILABLE], rel=0.4)
    conn.execute("UPDATE qworker.depth SET at = at - interval '1 hour'")
    assert app.admin.queues()[0].jobs[JobState.AVAILABLE] == pytest.approx(15_000, rel=0.4), "the sample is too old"
