"""A user's trigger that refuses what qworker writes about one job costs that job, and neither others nor a worker."""

from qworker import JobState
from tests.lifecycle.application import answer, noop, quick
from tests.lifecycle.cluster import Cluster, reached
from tests.refusing import refusing


def test_a_job_whose_claim_is_refused_at_the_commit_holds_up_no_other(cluster: Cluster) -> None:
    refused = answer.options(queue="first").enqueue()
    jobs = [quick.options(queue=queue).enqueue() for queue in ("first", "second")]
    when = "NEW.state = 'running' AND NEW.task = 'answer'"
    with refusing(cluster.database.connect(), "UPDATE", when, deferred=True):
        node = cluster.start("--queues", "first,second", "--processes", "2").await_ready()
        workers = node.children("worker")
        for job in jobs:
            assert reached(job).state == JobState.COMPLETED
        assert "refused" in node.await_event("job.claim_refused", job=refused.id, queue="first")["error"]
        assert node.children("worker") == workers
        assert refused.refresh().state == JobState.AVAILABLE
        assert node.stop() == 0
    after = cluster.start("--queues", "first,second", "--processes", "1").await_ready()
    assert reached(refused).state == JobState.COMPLETED
    assert after.events("job.claim_refused") == []


def test_a_delayed_job_that_may_not_become_available_holds_up_no_other(cluster: Cluster) -> None:
    refused, other = answer.options(delay=0.1).enqueue(), noop.options(delay=0.5).enqueue()
    with refusing(cluster.database.connect(), "UPDATE", "OLD.state = 'scheduled' AND NEW.task = 'answer'"):
        node = cluster.start("--processes", "1").await_ready()
        assert reached(other).state == JobState.COMPLETED
        node.await_event("maintenance.row_refused", task="promote", job=refused.id)
        assert node.stop() == 0
