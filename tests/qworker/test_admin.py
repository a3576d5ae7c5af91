"""Looking at many jobs, at queues, nodes and schedules."""

from typing import Any

import pytest

from qworker import App, JobState, Task, admin
from tests.qworker.conftest import FakeWorker, Query


@pytest.fixture
def send(app: App) -> Task[..., None]:
    @app.task(name="send")
    def send(n: int = 0) -> None: ...

    return send


def ids(jobs: list[Any]) -> list[int]:
    return [job.id for job in jobs]


def test_jobs_are_found_newest_first_by_what_they_are(app: App, send: Task[..., None], fake_worker: FakeWorker) -> None:
    done = send.options(tags=["x", "y"]).enqueue()
    assert fake_worker.claim() == done.id
    fake_worker.complete(done.id)
    failed = send.enqueue()
    assert fake_worker.claim() == failed.id
    fake_worker.fail(failed.id)
    mail = send.options(queue="emails").enqueue()
    late = send.options(delay=60, tags=["x"]).enqueue()
    other = app.task(name="other")(lambda: None).enqueue()
    find = app.admin.find
    assert ids(find()) == [other.id, late.id, mail.id, failed.id, done.id]
    assert ids(find(state="failed")) == ids(find(state=JobState.FAILED)) == [failed.id]
    assert ids(find(state="completed")) == [done.id]
    assert ids(find(queue="emails")) == [mail.id]
    assert ids(find(task="other")) == [other.id]
    assert ids(find(tag="x")) == [late.id, done.id]
    assert ids(find(tag="x", state="scheduled", queue="default", task="send")) == [late.id]
    assert ids(find(limit=2)) == [other.id, late.id]
    assert ids(find(limit=2, below=late.id)) == [mail.id, failed.id]
    assert find()[-1] == app.job(done.id)


def test_a_job_that_is_retried_waits_from_then_on(
    app: App, send: Task[..., None], fake_worker: FakeWorker, query: Query
) -> None:
    job = send.enqueue()
    query("UPDATE qworker.job SET run_at = '2020-01-01Z' RETURNING id")
    assert fake_worker.claim() == job.id
    fake_worker.fail(job.id)
    app.admin.retry(job.id)
    assert query("SELECT clock_timestamp() - run_at < interval '1 hour' FROM qworker.job") == [(True,)]


def test_jobs_are_iterated_newest_first_page_by_page(
    app: App, send: Task[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "PAGE", 3)
    made = send.enqueue_many([(n,) for n in range(8)], ids=True)
    assert ids([*app.jobs()]) == made[::-1]
    assert ids([*app.jobs(limit=5)]) == made[:2:-1]
    assert ids([*app.jobs(limit=0)]) == []
    assert ids([*app.jobs(limit=100, task=send, state="available", queue="default")]) == made[::-1]
    assert [*app.jobs(state=JobState.COMPLETED)] == []


def test_jobs_enqueued_while_others_are_iterated_are_left_out(
    app: App, send: Task[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "PAGE", 2)
    made = send.enqueue_many([(n,) for n in range(4)], ids=True)
    found = app.jobs()
    first = next(found)
    send.enqueue(5)
    assert [first.id, *ids([*found])] == made[::-1]


def test_jobs_are_found_by_the_key_that_they_hold(app: App, send: Task[..., None], fake_worker: FakeWorker) -> None:
    other: Task[[], None] = app.task(name="other")(lambda: None)
    mine, others = send.options(unique="k").enqueue(), other.options(unique="k").enqueue()
    send.options(unique="m").enqueue()
    assert ids([*app.jobs(unique="k")]) == [others.id, mine.id]
    assert ids([*app.jobs(unique="k", task="other", state="available")]) == [others.id]
    assert ids([*app.jobs(unique="k", limit=1)]) == [others.id]
    assert ids([*app.jobs(unique="k", queue="emails")]) == ids([*app.jobs(unique="k", tag="x")]) == []
    assert fake_worker.claim() == mine.id
    assert ids([*app.jobs(unique="k", state="running")]) == [mine.id]
    fake_worker.complete(mine.id)
    assert ids([*app.jobs(unique="k")]) == [others.id]
    kept = send.options(unique="k", unique_for=60).enqueue()
    while fake_worker.claim() != kept.id:
        pass
    fake_worker.complete(kept.id)
    assert ids([*app.jobs(unique="k", task=send)]) == [kept.id]


def test_what_jobs_takes_is_checked_at_once(app: App) -> None:
    with pytest.raises(ValueError, match="'lost' is not a valid JobState"):
        app.jobs(state="lost")
    with pytest.raises(ValueError, match="limit must be 0 or more"):
        app.jobs(limit=-1)


def test_an_unknown_state_is_refused(app: App) -> None:
    with pytest.raises(ValueError, match="'lost' is not a valid JobState"):
        app.admin.find(state="lost")


def rows_looked_at(node: dict[str, Any]) -> int:
    own = node["Actual Rows"] + node.get("Rows Removed by Filter", 0) if "Relation Name" in node else 0
    return int(own * node["Actual Loops"]) + sum(rows_looked_at(inner) for inner in node.get("Plans", ()))


def test_a_few_failed_jobs_are_found_without_walking_over_all_others(
    app: App, send: Task[..., None], query: Query
) -> None:
    query(
        "INSERT INTO qworker.job_history (id, enqueued_at, finished_at, state, attempt, ring_day, priority, crashes,"
        " node_losses,"
        " is_hook, queue, task, args) SELECT n, now(), now(), 'completed', 1, n % 32, 5, 0, 0, false, 'q', 't', '{}'"
        " FROM generate_series(1000000, 1010000) AS n RETURNING 1"
    )
    send.enqueue_many([(n,) for n in range(3000)])
    query("UPDATE qworker.job SET state = 'failed', failed_at = now() WHERE id % 1000 = 0 RETURNING 1")
    assert len(app.admin.find(state="failed")) == 3
    with app.pool.connection() as conn:
        for state in ("failed", "completed", None):
            parameters = {"state": state, "queue": None, "task": None, "tag": None, "below": None, "limit": 5}
            explain = "EXPLAIN (ANALYZE, FORMAT JSON) " + app.admin._sql["find"]
            ((plans,),) = conn.execute(explain, parameters, prepare=False)
            assert rows_looked_at(plans[0]["Plan"]) < 100, state


def test_sizes_count_what_is_not_over(app: App, send: Task[..., None], fake_worker: FakeWorker) -> None:
    for n in range(4):
        send.enqueue(n)
    send.options(delay=60).enqueue()
    send.options(queue="emails").enqueue_many([(1,), (2,)])
    job_id = fake_worker.claim()
    assert job_id is not None
    fake_worker.complete(job_id)
    failed = fake_worker.claim()
    assert failed is not None
    fake_worker.fail(failed)
    fake_worker.claim()
    assert app.admin.sizes() == {
        "default": {
            JobState.SCHEDULED: 1,
            JobState.AVAILABLE: 1,
            JobState.RUNNING: 1,
            JobState.FAILED: 1,
        },
        "emails": {JobState.AVAILABLE: 2},
    }
    default = app.queue("default")
    assert (default.size(), default.size("running"), default.size(JobState.FAILED)) == (2, 1, 1)
    assert app.queue("nobody").size() == 0


def test_many_jobs_are_changed_in_one_statement(app: App, send: Task[..., None], fake_worker: FakeWorker) -> None:
    jobs = [send.enqueue(n) for n in range(4)]
    running = fake_worker.claim()
    failed = fake_worker.claim()
    assert (running, failed) == (jobs[0].id, jobs[1].id)
    fake_worker.fail(failed)  # type: ignore[arg-type]
    everybody = [job.id for job in jobs] + [987654]
    assert app.admin.cancel(*everybody) == {
        jobs[0].id: JobState.RUNNING,
        jobs[2].id: JobState.CANCELLED,
        jobs[3].id: JobState.CANCELLED,
    }
    assert app.admin.retry(*everybody) == [jobs[1].id]
    assert app.admin.discard(*everybody) == []


def test_nodes_are_shown_as_their_last_beat_left_them(app: App, query: Query) -> None:
    query(
        "WITH n AS (INSERT INTO qworker.node (name, version, queues, worker_count, lease_seconds, state)"
        " VALUES ('host:1', '0.1', '{a,b}', 8, 30, '{\"cron\": []}') RETURNING id, queues)"
        " INSERT INTO qworker.idle_node SELECT * FROM n RETURNING 1"
    )
    (node,) = app.admin.nodes()
    assert (node.name, node.version, node.queues, node.worker_count, node.lease_seconds, node.idle, node.state) == (
        "host:1", "0.1", ("a", "b"), 8, 30.0, True, {"cron": []},
    )  # fmt: skip
    assert 0 <= node.heartbeat_age < 60
    assert node.started_at <= node.heartbeat_at


def test_schedules_are_shown_with_their_last_ticks(app: App, query: Query) -> None:
    query(
        "INSERT INTO qworker.cron (name, task, expression, timezone, last_tick, declared_by)"
        " VALUES ('s', 't', '* * * * *', 'UTC', '2026-01-01 00:00Z', 1) RETURNING 1"
    )
    (schedule,) = app.admin.schedules()
    assert (schedule.name, schedule.task, schedule.expression, schedule.timezone) == ("s", "t", "* * * * *", "UTC")
    assert schedule.last_tick is not None
    assert schedule.last_tick.isoformat() == "2026-01-01T00:00:00+00:00"
