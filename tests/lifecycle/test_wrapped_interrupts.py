"""An interrupt of ours decides what becomes of its job, whatever exception the handler has made of it."""

import signal

from qworker import JobState
from tests.lifecycle.cluster import Cluster, reached
from tests.lifecycle.wrappers import WITHOUT_TRACE, WRAPPERS, wraps, wraps_timeout
from tests.waiting import until

APP = {"QWORKER_APP": "tests.lifecycle.wrappers:app"}
PROCESSES = ("--processes", str(len(WRAPPERS)))


def test_a_deploy_gives_the_job_back_uncounted(cluster: Cluster) -> None:
    node = cluster.start(*PROCESSES, **APP).await_ready()
    jobs = {way: wraps.enqueue(way) for way in WRAPPERS}
    cluster.await_notes("start", len(jobs))
    node.signal(signal.SIGQUIT)
    assert node.wait() == 0
    left = {way: (job.refresh().state, job.refresh().attempt) for way, job in jobs.items()}
    assert left == dict.fromkeys(WRAPPERS, (JobState.AVAILABLE, 0)), node.tail()
    assert not node.events("job.failed")


def test_a_cancelled_job_is_cancelled_and_its_failure_hook_does_not_run(cluster: Cluster) -> None:
    node = cluster.start(*PROCESSES, **APP).await_ready()
    jobs = {way: wraps.enqueue(way) for way in WRAPPERS}
    cluster.await_notes("start", len(jobs))
    for job in jobs.values():
        job.cancel()
    ended = {way: reached(job) for way, job in jobs.items()}
    assert {way: job.state for way, job in ended.items()} == dict.fromkeys(WRAPPERS, JobState.CANCELLED), node.tail()
    assert {job.errors[-1]["cause"] for job in ended.values()} == {"cancelled"}
    assert cluster.value("SELECT count(*) FROM qworker.job") == 0, "a failure hook was enqueued"
    assert not cluster.notes("hook")


def test_a_timeout_is_recorded_as_one_and_the_worker_replaced(cluster: Cluster) -> None:
    node = cluster.start(*PROCESSES, **APP).await_ready()
    jobs = {way: wraps_timeout.enqueue(way) for way in WRAPPERS.keys() - WITHOUT_TRACE}
    for way, job in jobs.items():
        done = reached(job)
        assert (done.state, done.attempt, done.crashes) == (JobState.COMPLETED, 2, 0), way
        (error,) = done.errors
        assert (error["cause"], error["type"]) == ("timeout", "qworker.errors.TimeoutInterrupt"), way
        assert error["message"] == "still running after 0.5 s", way
    until(lambda: len(node.events("child.ended", cause="exit:80")) == len(jobs), what=node.tail)
    first = {note["pid"] for note in cluster.notes("start", attempt=1)}
    assert not first & {note["pid"] for note in cluster.notes("start", attempt=2)}
