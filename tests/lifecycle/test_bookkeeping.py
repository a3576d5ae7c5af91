"""A job that takes its worker with it before its handler runs is charged, and ends."""

import pytest

from qworker import JobState
from tests.lifecycle import application as shop
from tests.lifecycle.cluster import SOONER, Cluster, reached


@pytest.mark.parametrize("way", ["dies", "stalls"])
@pytest.mark.parametrize("what", ["an unknown task", "overrides"])
def test_a_job_whose_bookkeeping_ends_the_worker_fails_in_the_end(cluster: Cluster, what: str, way: str) -> None:
    node = cluster.start(
        "--processes", "1", "--max-crashes", "2", "--kill-grace", "0.5", *SOONER,
        QWORKER_APP="tests.lifecycle.bookkeeping:app", QWORKER_TEST_WAY=way,
    ).await_ready()  # fmt: skip
    if what == "overrides":
        job = shop.answer.options(timeout=77).enqueue()
    else:
        job = shop.app.job(cluster.value("SELECT qworker.enqueue('nobody_knows')"))
    after = reached(job, JobState.FAILED, timeout=60.0)
    assert (after.crashes, after.attempt) == (2, 2), node.tail()
    assert shop.answer.enqueue("next").wait(20) == "next"


@pytest.mark.parametrize("way", ["before", "after"])
def test_an_attempt_whose_failure_was_logged_stays_as_logged_if_the_worker_is_killed(
    cluster: Cluster, way: str
) -> None:
    node = cluster.start(
        "--processes", "1", *SOONER, QWORKER_APP="tests.lifecycle.announcing:app", QWORKER_TEST_WAY=way
    ).await_ready()  # fmt: skip
    mark = cluster.folder / "snoozed"
    jobs = [shop.flaky.enqueue(1), shop.hooked.enqueue(), shop.snoozing.enqueue(str(mark), 0.1)]
    ends = [reached(job) for job in jobs]
    assert [(end.state, end.attempt, end.crashes) for end in ends] == [
        (JobState.COMPLETED, 2, 0), (JobState.FAILED, 1, 0), (JobState.COMPLETED, 1, 0)
    ]  # fmt: skip
    assert [[error["type"] for error in end.errors] for end in ends] == [["ValueError"], ["ValueError"], []]
    cluster.await_notes("hook", job=jobs[1].id)
    assert len(cluster.notes("start", job=jobs[0].id)) == 2
    assert not node.events("job.crashed")
    assert len(node.events("child.died", cause="signal:KILL")) == 3
