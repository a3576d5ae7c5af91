"""What the command's switches do to jobs: ends of a node, ends of a worker, one attempt, the foreground."""

import signal

import pytest

from qworker import Job, JobState, Retry
from tests.lifecycle import application as shop
from tests.lifecycle import handlers
from tests.lifecycle.cluster import SOON, SOONER, Cluster, reached
from tests.waiting import until

ENDED = "SELECT count(*), count(DISTINCT id), max(attempt) FROM qworker.job_history WHERE state = 'completed'"
WAITING = "SELECT state::text, attempt, count(*) FROM qworker.job GROUP BY state, attempt"


@pytest.mark.parametrize("jobs", [1, 37, 150])
def test_a_node_stops_after_exactly_so_many_jobs(cluster: Cluster, jobs: int) -> None:
    shop.noop.enqueue_many((number,) for number in range(200))
    node = cluster.start("--processes", "3", "--max-jobs", str(jobs))
    assert node.wait() == 0
    assert cluster.query(ENDED) == [(jobs, jobs, 1)]
    assert cluster.query(WAITING) == [("available", 0, 200 - jobs)]


def test_jobs_that_are_tried_again_count_each_time(cluster: Cluster) -> None:
    # The second pause outlasts the node: what is due before it has ended would be made available.
    job = shop.flaky.options(retry=Retry(3, backoff=0.1, factor=600, jitter=0)).enqueue(5)
    assert cluster.start("--processes", "2", "--max-jobs", "2", *SOONER).wait() == 0
    assert (job.refresh().state, job.refresh().attempt) == (JobState.SCHEDULED, 2)


def test_drain_ends_the_node_when_the_queues_are_empty(cluster: Cluster) -> None:
    jobs: list[Job] = [shop.quick.enqueue() for _ in range(50)]
    jobs += [shop.flaky.enqueue(1), shop.nap.enqueue(0.5)]
    delayed, elsewhere = shop.quick.options(delay=60).enqueue(), shop.quick.options(queue="elsewhere").enqueue()
    assert cluster.start("--processes", "2", "--burst", *SOONER).wait() == 0
    assert {job.refresh().state for job in jobs} == {JobState.COMPLETED}
    assert (delayed.refresh().state, elsewhere.refresh().state) == (JobState.SCHEDULED, JobState.AVAILABLE)
    assert cluster.value("SELECT count(*) FROM qworker.node") == 0


@pytest.mark.parametrize(("limit", "value"), [("max-jobs-per-worker", "5"), ("max-rss", "16")])
def test_a_worker_is_replaced_and_no_job_is_lost(cluster: Cluster, limit: str, value: str) -> None:
    jobs = [shop.quick.enqueue() for _ in range(30)]
    node = cluster.start("--processes", "2", "--burst", *SOONER, f"--{limit}", value)
    assert node.wait() == 0
    assert cluster.query(ENDED) == [(30, 30, 1)]
    assert {note["job"] for note in cluster.notes("start")} == {str(job.id) for job in jobs}
    assert len(cluster.notes("start")) == 30
    assert len({note["pid"] for note in cluster.notes("start")}) > 2
    assert len(node.events("worker.recycled", limit=limit)) > 2
    assert not node.events("child.died")


def test_with_one_attempt_at_most_nothing_is_tried_again(cluster: Cluster) -> None:
    node = cluster.start("--processes", "2", "--max-attempts", "1", *SOONER).await_ready()
    flaky, crashing = shop.flaky.enqueue(1), handlers.dies.enqueue("SIGKILL")
    for job in (flaky, crashing):
        after = reached(job)
        assert (after.state, after.attempt) == (JobState.FAILED, 1)
    assert node.stop() == 0


# In the foreground


def test_inline_runs_jobs_in_one_process(cluster: Cluster) -> None:
    node = cluster.start("--inline", *SOONER)
    assert shop.answer.enqueue(1).wait(SOON) == 1
    reached(flaky := shop.flaky.enqueue(1))
    shop.quick.enqueue().wait(SOON)
    assert flaky.refresh().state is JobState.COMPLETED
    assert {note["pid"] for note in cluster.notes("start")} == {str(node.pid)}
    assert node.members() == [node.pid]
    node.signal(signal.SIGINT)
    assert node.wait() == 0
    assert cluster.value("SELECT count(*) FROM qworker.node") == 0


@pytest.mark.parametrize(("switches", "done"), [(("--burst",), 20), (("--max-jobs", "7"), 7)])
def test_inline_ends_by_itself_as_well(cluster: Cluster, switches: tuple[str, ...], done: int) -> None:
    shop.noop.enqueue_many((number,) for number in range(20))
    assert cluster.start("--inline", *SOONER, *switches).wait() == 0
    assert cluster.query(ENDED) == [(done, done, 1)]


def test_inline_ends_no_job_by_its_timeout(cluster: Cluster) -> None:
    """A breakpoint waits for a person."""
    node = cluster.start("--inline", *SOONER, QWORKER_TIMEOUT="0.1")
    jobs = [shop.short_nap.options(timeout=0.1).enqueue(0.5), handlers.time_left.enqueue()]
    assert [reached(job).state for job in jobs] == [JobState.COMPLETED] * 2
    assert jobs[1].refresh().result == "inf"
    assert node.stop() == 0


@pytest.mark.parametrize("switch", [(), ("--inline",)])
def test_a_drain_that_has_put_back_unknown_tasks_does_not_end_with_0(cluster: Cluster, switch: tuple[str, ...]) -> None:
    shop.quick.enqueue()
    unknown = cluster.value("SELECT qworker.enqueue('of.another.release')")
    node = cluster.start("--burst", *SOONER, *switch)
    assert node.wait() == 1
    assert node.events("job.unknown_task", job=unknown)
    assert cluster.query("SELECT state::text FROM qworker.job") == [("scheduled",)]


def test_inline_ends_after_the_running_job_and_at_once_when_asked_twice(cluster: Cluster) -> None:
    node = cluster.start("--inline", *SOONER)
    short = shop.nap.enqueue(0.5)
    cluster.await_notes("start", job=short.id)
    node.signal(signal.SIGINT)
    assert node.wait() == 0
    assert short.refresh().state is JobState.COMPLETED

    node = cluster.start("--inline", *SOONER)
    long = handlers.beats.enqueue()
    cluster.await_notes("start", job=long.id)
    node.signal(signal.SIGINT)
    # Two that come before the interpreter has answered the first would be one: it has when the handler goes on.
    until(lambda: not pending(node.pid, signal.SIGINT), SOON)
    cluster.await_notes("beat", len(cluster.notes("beat")) + 2)
    node.signal(signal.SIGINT)
    assert node.wait() == 0
    after = long.refresh()
    assert (after.state, after.attempt, after.errors) == (JobState.AVAILABLE, 0, ())


def pending(pid: int, signum: signal.Signals) -> bool:
    """Tell whether a signal was sent to a process and not yet taken (proc(5) status)."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:  # noqa: PTH123
        masks = [int(line.split()[1], 16) for line in file if line.startswith(("SigPnd", "ShdPnd"))]
    return any(mask & 1 << signum - 1 for mask in masks)
