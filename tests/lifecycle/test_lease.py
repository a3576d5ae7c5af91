"""Whatever stops a node, no job of it runs anywhere else before its own handlers have ended, and each soon after.

All faults strike at the same time, each a node of its own, and one node that stays well takes over: what takes a lease
to show is waited for once.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from time import monotonic

import pytest

from qworker import JobState
from tests.lifecycle.application import quick
from tests.lifecycle.cluster import Cluster, reached
from tests.lifecycle.node import alive
from tests.lifecycle.proxy import Proxy
from tests.lifecycle.victims import DECLARED_DEAD, DRAINED, HOSTILE, LEASE, LOST, STOPPED, Victim
from tests.waiting import until

Victims = dict[str, Victim]

#: After its lease, a node's jobs run elsewhere within so many seconds.
LATER = 5.0


@pytest.fixture(scope="module")
def victims(module_cluster: Cluster) -> Iterator[Victims]:
    with ExitStack() as stack:
        found = {
            name: Victim(module_cluster, name, fault, stack.enter_context(Proxy(module_cluster.database.dsn)))
            for name, fault in (LOST | STOPPED | DRAINED | DECLARED_DEAD).items()
        }
        for victim in found.values():
            victim.node.await_ready()
            victim.occupy()
        # A row that is deleted by hand is no proof of a death: whoever serves that queue could take the job too early.
        queues = [victim.queue for name, victim in found.items() if name not in DECLARED_DEAD]
        module_cluster.start(
            "--processes", "4", "--lease-timeout", str(LEASE), "--queues", ",".join(queues), QWORKER_APP=HOSTILE
        ).await_ready()
        for victim in found.values():
            victim.strike()
        yield found


@pytest.fixture
def victim(victims: Victims, request: pytest.FixtureRequest) -> Victim:
    found = victims[request.param]
    assert isinstance(found, Victim)
    return found


def of(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("victim", names, indirect=True)


def taken_over(cluster: Cluster, victim: Victim) -> tuple[int, float]:
    """Wait until the job runs elsewhere; return in which process, and how long that took since the fault."""
    left = victim.struck_at + victim.fault.lease + LATER - monotonic()
    _, second = cluster.await_notes("start", 2, timeout=max(left, 0.1), job=victim.job.id)
    assert int(second["pid"]) not in victim.node.children("worker")
    return int(second["pid"]), float(second["at"]) - victim.struck_at


@of("supervisor killed", "supervisor and scheduler killed")
def test_workers_do_not_outlive_their_supervisor(victim: Victim) -> None:
    until(lambda: not alive(victim.worker), victim.struck_at + 2 - monotonic(), what="the worker's end")
    until(lambda: not victim.node.members(), 5, what="the node's end")


@of(*LOST)
def test_another_node_has_the_job_soon_after_the_lease(module_cluster: Cluster, victim: Victim) -> None:
    _, after = taken_over(module_cluster, victim)
    assert after <= victim.fault.lease + LATER
    # A failed lock would have been an overlap; the kernel frees it when the handler's process is dead.
    assert module_cluster.notes("overlap", job=victim.job.id) == []
    assert not alive(victim.worker)
    done = reached(victim.job)
    assert (done.state, done.attempt, done.crashes, done.node_losses) == (JobState.COMPLETED, 1, 0, 1)


@of("supervisor killed")
def test_an_orphaned_scheduler_does_not_let_others_wait_for_the_lease(module_cluster: Cluster, victim: Victim) -> None:
    _, after = taken_over(module_cluster, victim)
    assert after < victim.fault.lease - 1, "the last beat that others saw may have been a second old"


@of(*STOPPED)
def test_the_jobs_of_a_machine_that_stands_still_go_on_elsewhere(module_cluster: Cluster, victim: Victim) -> None:
    _, after = taken_over(module_cluster, victim)
    assert after <= LEASE + LATER


@of("stopped")
def test_a_machine_that_wakes_too_late_stops_what_it_ran(module_cluster: Cluster, victim: Victim) -> None:
    elsewhere, _ = taken_over(module_cluster, victim)
    woken_at = monotonic()
    victim.heal()
    until(lambda: not alive(victim.worker), 5, what="the worker's end")
    assert monotonic() - woken_at < 5
    victim.finish(elsewhere)
    done = reached(victim.job)
    assert (done.state, done.attempt, done.node_losses) == (JobState.COMPLETED, 1, 1)


@of("stopped until the job is done")
def test_what_a_stale_worker_writes_changes_nothing(module_cluster: Cluster, victim: Victim) -> None:
    elsewhere, _ = taken_over(module_cluster, victim)
    row = ("SELECT j::text FROM qworker.job AS j WHERE id = %s", victim.job.id)
    before = module_cluster.query(*row)
    victim.heal()
    (stale,) = victim.node.events("job.stale_write")
    assert (stale["jobs"], stale["count"]) == ([victim.job.id], 1)
    assert module_cluster.query(*row) == before
    victim.finish(elsewhere)
    done = reached(victim.job)
    assert (done.state, done.attempt, done.node_losses) == (JobState.COMPLETED, 1, 1)


@of("declared dead")
def test_a_node_declared_dead_kills_its_workers_before_it_registers_anew(
    module_cluster: Cluster, victim: Victim
) -> None:
    victim.node.await_event("node.registered", count=2)
    events = [event["event"] for event in victim.node.events()]
    last = len(events) - events[::-1].index("node.registered")
    assert "node.declared_dead" in events[:last]
    (died,) = victim.node.events("child.died", child_pid=victim.worker)
    assert died["cause"] == "lease"
    assert events.index("child.died") < last
    done = reached(victim.job, timeout=LEASE + LATER)
    assert (done.state, done.attempt, done.node_losses) == (JobState.COMPLETED, 1, 1)
    assert module_cluster.notes("overlap", job=victim.job.id) == []


@of("drained")
def test_no_other_node_takes_a_job_that_outlasts_the_lease_in_a_drain(module_cluster: Cluster, victim: Victim) -> None:
    """The scheduler stops last: it renews the lease until the last handler has ended."""
    until(lambda: monotonic() > victim.struck_at + LEASE + 3, LEASE + 3)
    assert alive(victim.worker)
    victim.heal()
    assert victim.node.wait() == 0
    done = reached(victim.job)
    assert (done.state, done.attempt, done.node_losses) == (JobState.COMPLETED, 1, 0)
    assert len(module_cluster.notes("start", job=victim.job.id)) == 1


@of(*[name for name, fault in (LOST | STOPPED).items() if fault.heal])
def test_a_node_works_again_when_the_fault_is_over(victims: Victims, victim: Victim) -> None:
    for name in LOST:
        victims[name].heal()  # all at once: it takes a while
    job = quick.options(queue=f"{victim.queue}_own").enqueue()
    assert reached(job, timeout=25).state is JobState.COMPLETED
    assert victim.node.stop() == 0
    assert victim.node.members() == []
