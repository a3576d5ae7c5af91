"""What happens to a job in the ordinary course of things, with real processes."""

from datetime import timedelta
from pathlib import Path

import pytest

from qworker import JobFailed, JobState, Retry
from qworkerd.cli.running import runs
from tests.lifecycle import application as shop
from tests.lifecycle import handlers
from tests.lifecycle.cluster import PATIENT, SOON, SOONER, Cluster, reached
from tests.lifecycle.node import Node
from tests.waiting import until


@pytest.fixture(scope="module")
def node(module_cluster: Cluster) -> Node:
    return module_cluster.start("--processes", "2", "--queues", "default,other").await_ready()


def test_a_job_runs_and_its_history_tells(node: Node, module_cluster: Cluster) -> None:
    job = shop.nap.options(priority=3, tags=["one", "two"]).enqueue(0.05)
    assert job.state is JobState.AVAILABLE
    assert job.wait(SOON) is None
    after = job.refresh()
    assert (after.state, after.queue, after.priority, after.task) == (JobState.COMPLETED, "default", 3, "nap")
    assert (after.args, after.tags, after.attempt) == ({"seconds": 0.05}, ("one", "two"), 1)
    assert (after.crashes, after.node_losses, after.errors) == (0, 0, ())
    assert after.enqueued_at is not None
    assert after.claimed_at is not None
    assert after.finished_at is not None
    assert after.enqueued_at <= after.claimed_at <= after.finished_at
    assert after.duration is not None
    assert 0.05 <= after.duration <= (after.finished_at - after.claimed_at).total_seconds()
    assert module_cluster.value("SELECT count(*) FROM qworker.job WHERE id = %s", job.id) == 0


def test_a_node_tells_where_a_job_runs_since_when_and_until_when(node: Node) -> None:
    job = shop.nap.options(timeout=60).enqueue(60)
    run = until(lambda: runs(shop.app.admin.nodes()).get(job.id))
    assert run is not None
    assert (run.node, run.worker in (1, 2)) == (shop.app.admin.nodes()[0].name, True)
    claimed_at = job.refresh().claimed_at
    assert claimed_at is not None
    assert run.since is not None
    assert run.until is not None
    assert abs((run.since - claimed_at).total_seconds()) < 2
    assert 59 < (run.until - run.since).total_seconds() < 61
    job.cancel()
    reached(job)


@pytest.mark.parametrize("value", [0, "", False, [], {"a": [1, None, {"ä": "☃"}]}, 1.5, 2**60])
def test_what_a_handler_returns_is_its_result(node: Node, value: object) -> None:
    assert shop.answer.enqueue(value).wait(SOON) == value


def test_a_result_that_cannot_be_kept_is_no_reason_to_fail(node: Node) -> None:
    job = handlers.unkeepable.enqueue()
    assert job.wait(SOON) is None
    assert node.await_event("job.result_dropped", job=job.id)["error"]


def test_waiting_ends_with_the_error_of_a_job_that_failed(node: Node) -> None:
    with pytest.raises(JobFailed, match="ValueError: attempt 1") as caught:
        handlers.raises.options(retry=1).enqueue("ValueError").wait(SOON)
    assert caught.value.attempt == 1


def test_jobs_start_in_the_order_of_queues_then_priority_then_age(cluster: Cluster) -> None:
    placed = [
        ("default", 5), ("default", 0), ("critical", 9), ("default", 5), ("critical", 1), ("ignored", 0),
        ("default", 9), ("critical", 9),
    ]  # fmt: skip
    jobs = [shop.quick.options(queue=queue, priority=priority).enqueue() for queue, priority in placed]
    node = cluster.start("--processes", "1", "--queues", "critical,default", "--burst", *SOONER, **PATIENT)
    assert node.wait() == 0
    order = [int(note["job"]) for note in cluster.notes("start")]
    assert [jobs.index(job) for number in order for job in jobs if job.id == number] == [4, 2, 7, 1, 0, 3, 6]
    assert jobs[5].refresh().state is JobState.AVAILABLE


def test_a_delayed_job_starts_within_a_second_of_being_due(node: Node) -> None:
    job = shop.quick.options(delay=timedelta(seconds=0.4)).enqueue()
    assert job.state is JobState.SCHEDULED
    job.wait(SOON)
    claimed = job.refresh().claimed_at
    assert claimed is not None
    assert job.run_at is not None
    assert timedelta(0) <= claimed - job.run_at < timedelta(seconds=1)


def test_a_retry_starts_within_a_second_of_being_due(node: Node) -> None:
    job = shop.flaky.options(retry=Retry(2, backoff=2, jitter=0)).enqueue(1)
    waiting = reached(job, JobState.SCHEDULED)
    assert waiting.attempt == 1
    assert job.wait(SOON) == "done"
    after = job.refresh()
    assert after.claimed_at is not None
    assert waiting.run_at is not None
    assert timedelta(0) <= after.claimed_at - waiting.run_at < timedelta(seconds=1)
    assert (after.attempt, after.crashes) == (2, 0)
    assert [(error["attempt"], error["message"]) for error in after.errors] == [(1, "attempt 1")]


def test_5_000_jobs_enqueued_at_once_run_once_each(node: Node, module_cluster: Cluster) -> None:
    first = module_cluster.value("SELECT coalesce(max(id), 0) FROM qworker.jobs")
    assert shop.noop.enqueue_many((number,) for number in range(5_000)) == 5_000
    ended = "SELECT count(*), count(DISTINCT id), min(attempt), max(attempt) FROM qworker.job_history WHERE id > %s"
    until(lambda: module_cluster.query(ended, first) == [(5_000, 5_000, 1, 1)], SOON,
          what=lambda: f"{module_cluster.query(ended, first)}\n{node.tail()}")  # fmt: skip
    assert module_cluster.value("SELECT count(*) FROM qworker.job WHERE id > %s", first) == 0


def test_a_long_job_holds_up_neither_those_before_it_nor_those_behind_it(cluster: Cluster, tmp_path: Path) -> None:
    before = [shop.noop.enqueue() for _ in range(40)]
    long = handlers.held.enqueue(str(tmp_path / "go"))
    behind = [shop.noop.enqueue() for _ in range(40)]
    node = cluster.start("--processes", "1").await_ready()
    reached(long, JobState.RUNNING)
    states = "SELECT DISTINCT state, attempt FROM qworker.jobs WHERE id = ANY (%s)"
    until(lambda: cluster.query(states, [job.id for job in before]) == [("completed", 1)], SOON)
    until(lambda: cluster.query(states, [job.id for job in behind]) == [("available", 0)], SOON)
    other = cluster.start("--processes", "1").await_ready()
    until(lambda: cluster.query(states, [job.id for job in behind]) == [("completed", 1)], SOON)
    assert long.refresh().state is JobState.RUNNING
    (tmp_path / "go").touch()
    long.wait(SOON)
    assert (node.stop(), other.stop()) == (0, 0)


def test_many_queues_are_worked_off_by_one_node(cluster: Cluster) -> None:
    queues = [f"queue-{number}" for number in range(50)]
    jobs = [
        shop.answer.options(queue=queue, priority=number % 10).enqueue(queue) for number, queue in enumerate(queues)
    ]
    node = cluster.start("--processes", "2", "--queues", ",".join(queues)).await_ready()
    assert [job.wait(SOON) for job in jobs] == queues
    assert shop.answer.options(queue="queue-49").enqueue("awake").wait(SOON) == "awake"
    assert node.stop() == 0


def test_a_job_of_an_unknown_task_comes_again_ever_later_uncharged(node: Node, module_cluster: Cluster) -> None:
    job_id = module_cluster.value("SELECT qworker.enqueue('nobody.knows', '[1]')")
    seen = (
        "SELECT state::text, attempt, unknown_task_count, crashes, errors,"
        " round(extract(epoch FROM run_at - clock_timestamp()))"
        "  FROM qworker.job WHERE id = %s"
    )
    for unknown_task_count, delay in ((1, 5), (2, 10), (3, 20)):
        until(lambda expected=unknown_task_count: module_cluster.query(seen, job_id)[0][2] == expected, SOON)  # type: ignore[misc]
        state, attempt, _, crashes, errors, due_in = module_cluster.query(seen, job_id)[0]
        assert (state, attempt, crashes, errors) == ("scheduled", 0, 0, None)
        assert delay - 2 <= due_in <= delay
        module_cluster.query(
            "UPDATE qworker.job SET run_at = clock_timestamp() WHERE id = %s AND unknown_task_count < 3", job_id
        )
    reported = node.await_event("job.unknown_task", count=3, job=job_id)
    assert (reported["level"], reported["task"], reported["retry_in"]) == ("warning", "nobody.knows", 20)


def test_a_job_can_be_enqueued_from_sql(node: Node, module_cluster: Cluster) -> None:
    by_name = module_cluster.value("""SELECT qworker.enqueue('answer', '{"value": "named"}')""")
    by_position = module_cluster.value("""SELECT qworker.enqueue('answer', '["placed"]', queue => 'other')""")
    assert shop.app.job(by_name).wait(SOON) == "named"
    assert shop.app.job(by_position).wait(SOON) == "placed"


def test_a_job_that_nobody_started_in_time_never_starts(cluster: Cluster) -> None:
    job = shop.quick.options(expires=0.01).enqueue()
    until(lambda: cluster.value("SELECT expires_at < clock_timestamp() FROM qworker.job WHERE id = %s", job.id))
    node = cluster.start("--processes", "1").await_ready()
    after = reached(job)
    assert after.state is JobState.CANCELLED
    assert after.errors[-1]["type"] == "Expired"
    assert not cluster.notes("start")
    assert node.stop() == 0


# current_job


def test_a_handler_knows_its_job(node: Node) -> None:
    job = handlers.facts.options(queue="other").enqueue()
    reported = job.wait(SOON)
    assert (reported["id"], reported["task"], reported["queue"]) == (job.id, "facts", "other")
    assert (reported["attempt"], reported["max_attempts"]) == (1, 3)
    assert 25 < reported["time_left"] <= 30
    assert job.enqueued_at is not None
    assert reported["enqueued_at"] == job.enqueued_at.isoformat()


def test_progress_is_seen_while_the_job_runs(node: Node, tmp_path: Path) -> None:
    job = handlers.reports_and_waits.enqueue(str(tmp_path / "go"))
    until(lambda: job.refresh().progress == {"fraction": 0.25, "text": "a quarter"}, SOON)
    assert job.refresh().state is JobState.RUNNING
    (tmp_path / "go").touch()
    job.wait(SOON)


def test_a_snoozed_job_comes_again_and_has_not_used_an_attempt(
    node: Node, module_cluster: Cluster, tmp_path: Path
) -> None:
    job = shop.snoozing.options(retry=1).enqueue(str(tmp_path / "seen"), 0.2)
    job.wait(SOON)
    assert (job.refresh().attempt, job.refresh().errors) == (1, ())
    first, second = module_cluster.notes("start", job=job.id)
    assert (first["attempt"], second["attempt"]) == ("1", "1")
    assert float(second["at"]) - float(first["at"]) >= 0.2
    assert node.await_event("job.snoozed", job=job.id)["delay"] == 0.2


@pytest.mark.parametrize(("fail", "rows"), [(False, 1), (True, 0)])
def test_work_on_the_lent_connection_ends_with_the_handler(
    node: Node, module_cluster: Cluster, *, fail: bool, rows: int
) -> None:
    table = f"written_{rows}"
    module_cluster.query(f"CREATE TABLE {table} (number integer)")
    job = handlers.writes.enqueue(table, fail=fail)
    assert reached(job).state is (JobState.FAILED if fail else JobState.COMPLETED)
    assert module_cluster.value(f"SELECT count(*) FROM {table}") == rows  # noqa: S608
