"""A user's trigger that suppresses what qworker writes costs the jobs it is about, with an event, and no others."""

import pytest

from qworker import JobState
from tests.lifecycle import hazards
from tests.lifecycle.application import answer, noop, quick, suicide
from tests.lifecycle.cluster import Cluster, reached
from tests.suppressing import suppressing

IMPATIENT = {"QWORKER_APP": "tests.lifecycle.hazards:app", "QWORKER_TEST_LAST_RESORT": "1"}


@pytest.mark.parametrize("row", ["NULL", "NEW"])
def test_a_job_whose_end_is_suppressed_fails(cluster: Cluster, row: str) -> None:
    """In a trigger on DELETE, NEW is NULL."""
    with suppressing(cluster.database.connect(), "DELETE", "OLD.task = 'answer'", row=row):
        node = cluster.start("--processes", "1", **IMPATIENT).await_ready()
        jobs = [answer.enqueue(), quick.enqueue(), hazards.answers_in_transaction.enqueue()]
        done = [reached(job) for job in jobs]
        assert [job.state for job in done] == [JobState.FAILED, JobState.COMPLETED, JobState.COMPLETED]
        assert "suppresses" in done[0].errors[-1]["message"]
        assert "suppresses" in node.await_event("job.end_refused", jobs=[jobs[0].id])["error"]
        assert node.stop() == 0


def test_a_transactional_job_whose_end_is_suppressed_fails_with_its_work_undone(cluster: Cluster) -> None:
    with suppressing(cluster.database.connect(), "DELETE", "OLD.task = 'answers_in_transaction'"):
        cluster.start("--processes", "1", **IMPATIENT).await_ready()
        job = reached(hazards.answers_in_transaction.enqueue())
        assert (job.state, job.errors[-1]["type"].rpartition(".")[2]) == (JobState.FAILED, "WriteSuppressed")


def test_a_job_whose_claim_is_suppressed_holds_up_no_other(cluster: Cluster) -> None:
    suppressed, others = answer.enqueue(), [quick.enqueue() for _ in range(3)]
    with suppressing(cluster.database.connect(), "UPDATE", "NEW.state = 'running' AND NEW.task = 'answer'"):
        node = cluster.start("--processes", "1", "--max-batch", "1", **IMPATIENT).await_ready()
        for job in others:
            assert reached(job).state is JobState.COMPLETED
        assert "suppresses" in node.await_event("job.claim_refused", job=suppressed.id)["error"]
        assert suppressed.refresh().state is JobState.AVAILABLE
        assert node.stop() == 0


def test_a_delayed_job_whose_promotion_is_suppressed_is_reported(cluster: Cluster) -> None:
    suppressed, other = answer.options(delay=0.1).enqueue(), noop.options(delay=0.5).enqueue()
    with suppressing(cluster.database.connect(), "UPDATE", "OLD.state = 'scheduled' AND NEW.task = 'answer'"):
        node = cluster.start("--processes", "1", **IMPATIENT).await_ready()
        assert reached(other).state is JobState.COMPLETED
        node.await_event("maintenance.row_refused", task="promote", job=suppressed.id)
        assert node.stop() == 0


def test_what_is_suppressed_after_a_worker_has_died_holds_no_slot(cluster: Cluster) -> None:
    with suppressing(cluster.database.connect(), "UPDATE", "NEW.crashes > OLD.crashes"):
        node = cluster.start("--processes", "1", **IMPATIENT).await_ready()
        job = suicide.enqueue()
        node.await_event("job.end_refused", jobs=[job.id])
        assert reached(job).errors[-1]["type"] == "EndRefused"
        node.await_event("worker.jobs_recovered")
        assert reached(quick.enqueue()).state is JobState.COMPLETED
        assert node.stop() == 0
