"""What stands in the slot of a worker that dies before it could store an outcome is settled from there."""

from pathlib import Path

import pytest

from qworker import JobState
from tests.lifecycle.aftermaths import OUTCOMES, WAYS, breaks_afterwards
from tests.lifecycle.application import quick
from tests.lifecycle.cluster import Cluster, reached
from tests.waiting import until


@pytest.mark.parametrize("way", WAYS)
def test_a_job_that_breaks_its_worker_after_it_has_ended_is_settled_as_what_it_was(
    cluster: Cluster, tmp_path: Path, way: str
) -> None:
    node = cluster.start("--processes", "3", QWORKER_APP="tests.lifecycle.aftermaths:app").await_ready()
    jobs = {outcome: breaks_afterwards.enqueue(way, outcome, str(tmp_path / "go")) for outcome in OUTCOMES}
    cluster.await_notes("start", len(jobs))
    behind = [quick.enqueue() for _ in range(20)]
    # Nothing can be stored of these jobs while their rows are locked: their workers die before.
    with cluster.connect() as conn:
        ids = [job.id for job in jobs.values()]
        assert len(conn.execute("SELECT FROM qworker.job WHERE id = ANY (%s) FOR UPDATE", (ids,)).fetchall()) == 3
        pids = {note["pid"] for note in cluster.notes("start")}
        (tmp_path / "go").touch()
        # Three seconds of processor time take long on a loaded machine.
        until(lambda: pids <= {str(e["child_pid"]) for e in (*node.events("child.died"), *node.events("child.ended"))},
              60.0, what=node.tail)  # fmt: skip
        assert {job.refresh().state for job in jobs.values()} == {JobState.RUNNING}
    done = {outcome: reached(job) for outcome, job in jobs.items()}
    assert {outcome: (job.state, job.crashes, job.node_losses) for outcome, job in done.items()} == dict.fromkeys(
        OUTCOMES, (JobState.COMPLETED, 0, 0)
    ), node.tail()
    assert (done["result"].attempt, done["result"].result) == (1, {"attempt": 1})
    assert (done["None"].attempt, done["None"].result) == (1, None)
    assert (done["error"].attempt, done["error"].result) == (2, {"attempt": 2})
    assert [error["type"] for error in done["error"].errors] == ["ValueError"]
    runs = {outcome: len(cluster.notes("start", job=job.id)) for outcome, job in jobs.items()}
    assert runs == {"result": 1, "None": 1, "error": 2}
    assert {reached(job).state for job in behind} == {JobState.COMPLETED}
