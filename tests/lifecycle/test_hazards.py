"""What a handler spoils in its process harms neither node nor neighbours, and does not go on for ever."""

import pytest

from qworker import JobState
from tests.lifecycle import hazards
from tests.lifecycle.application import quick
from tests.lifecycle.cluster import SOON, Cluster, reached
from tests.lifecycle.hazards import DAMAGES
from tests.lifecycle.node import Node
from tests.waiting import until

APP = {"QWORKER_APP": "tests.lifecycle.hazards:app"}


def disconnect(cluster: Cluster, node: Node) -> None:
    """End the sessions of the workers: they have to connect anew."""
    cluster.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ ' (worker|job) '")
    until(lambda: node.process.poll() is None)


def test_a_handler_that_stalls_its_worker_each_time_fails(cluster: Cluster) -> None:
    """Its attempts are not counted, for the database could have been the reason; its losses are."""
    node = cluster.start("--processes", "1", "--stall-timeout", "5", "--max-node-losses", "1", **APP).await_ready()
    job = reached(hazards.stalls_acknowledger.enqueue(), timeout=40.0)
    assert (job.state, job.node_losses, job.crashes) == (JobState.FAILED, 1, 0), node.tail()
    assert job.errors[-1]["cause"] == "stalled"
    assert quick.enqueue().wait(SOON) is None


@pytest.mark.parametrize("what", DAMAGES)
def test_a_worker_that_damages_its_slot_and_dies_takes_nothing_with_it(cluster: Cluster, what: str) -> None:
    node = cluster.start("--processes", "2", **APP).await_ready()
    job = hazards.damages_slot.enqueue(what)
    node.await_event("child.died")
    assert reached(quick.enqueue()).state is JobState.COMPLETED
    done = reached(job)
    assert done.state is JobState.COMPLETED, node.tail()
    assert done.crashes + done.node_losses == 1
    assert node.stop() == 0


@pytest.mark.parametrize(
    "variables",
    [
        {"PGSSLMODE": "verify-full"}, {"PGHOSTADDR": "192.0.2.1"}, {"PGOPTIONS": "-c nonsense=1"},
        {"PGSERVICE": "nowhere", "PGSERVICEFILE": "/nonexistent"},
    ],
)  # fmt: skip
def test_what_a_handler_sets_for_programs_of_its_own_leads_no_connection_of_ours_elsewhere(
    cluster: Cluster, variables: dict[str, str]
) -> None:
    node = cluster.start("--processes", "1", **APP).await_ready()
    assert hazards.leaves_environment.enqueue(variables).wait(SOON) is None
    disconnect(cluster, node)
    assert reached(quick.enqueue()).state is JobState.COMPLETED, node.tail()
    assert node.stop() == 0
    restored = [event["changed"] for event in node.events("environment.restored")]
    assert restored == [[*variables]] * ("PGSERVICE" in variables)


def test_a_dsn_in_the_environment_is_the_one_of_the_start(cluster: Cluster) -> None:
    node = cluster.start("--processes", "1", **APP).await_ready()
    elsewhere = dict.fromkeys(("QWORKER_DSN", "DATABASE_URL"), "postgresql://nobody@192.0.2.1/none")
    assert hazards.leaves_environment.enqueue(elsewhere).wait(SOON) is None
    disconnect(cluster, node)
    assert reached(hazards.enqueues.enqueue()).state is JobState.COMPLETED, node.tail()
    assert node.stop() == 0


def test_a_worker_goes_on_in_a_process_that_a_handler_has_laid_waste(cluster: Cluster) -> None:
    node = cluster.start("--processes", "1", **APP).await_ready()
    assert hazards.leaves_process.enqueue().wait(SOON) is None
    disconnect(cluster, node)
    assert reached(hazards.borrows.enqueue()).state is JobState.COMPLETED, node.tail()
    assert node.stop() == 0
    assert node.events("child.died") == []


@pytest.mark.parametrize("what", hazards.DELAYED)
def test_what_would_end_a_process_later_does_not_outlive_its_job(cluster: Cluster, what: str) -> None:
    """The job that runs then would be charged with the death of its worker."""
    node = cluster.start("--processes", "1", **APP).await_ready()
    job = hazards.leaves_delayed.enqueue(what)
    job.wait(SOON)
    assert hazards.works.enqueue(1.5).wait(SOON) == len("done"), node.tail()
    assert node.stop() == 0
    assert node.events("child.died") == []
    assert [event["job"] for event in node.events("limits.restored")] == [job.id] * (what != "faulthandler")


def test_no_connection_takes_the_place_of_a_standard_descriptor(cluster: Cluster) -> None:
    node = cluster.start("--processes", "1", **APP).await_ready()
    assert hazards.closes_standard.enqueue().wait(SOON) is None
    disconnect(cluster, node)
    assert hazards.borrows.enqueue().wait(SOON) == 1
    links = hazards.standard.enqueue().wait(SOON)
    assert links == ["/dev/null"] * 3


def test_a_worker_whose_output_is_broken_ends_all_the_same(cluster: Cluster) -> None:
    """Whatever is raised at its end must not unwind into the frames of the supervisor that it was forked from."""
    node = cluster.start("--processes", "1", **APP).await_ready()
    assert hazards.replaces_output.enqueue().wait(SOON) is None
    assert node.stop() == 0
    assert node.events("child.died") == node.events("process.died") == []
    assert node.events("child.ended", child="worker 1")[-1]["cause"] == "exit:0"


def test_an_application_whose_output_is_broken_is_served(cluster: Cluster) -> None:
    node = cluster.start("--processes", "1", QWORKER_TEST_OUTPUT="broken", **APP).await_ready()
    assert quick.enqueue().wait(SOON) is None
    node.stop()  # with 120: Python too writes out at its end
    assert node.events("supervisor.stopped", exit_code=0)
