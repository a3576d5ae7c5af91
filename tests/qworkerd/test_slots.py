"""The shared memory: what one process writes is what another reads, also after the writer's death."""

import os

import pytest

from qworkerd.shared.claim import MAX_CLAIMS, MAX_JOBS, Status, new_token
from qworkerd.shared.slots import Phase, Role, SlotState, SlotTable


@pytest.fixture
def table() -> SlotTable:
    return SlotTable(3)


def test_a_child_writes_what_its_parent_reads(table: SlotTable) -> None:
    slot = table.free_slot()
    assert slot is not None
    slot.assign(Role.WORKER, 2, deadline=1.5, now=0.5)
    pid = os.fork()
    if pid == 0:
        claim = slot.claims[0]
        claim.open(77)
        claim.fill([11, 12, 13], [0, 1, 0], [1, 1, 4])
        claim.statuses[1] = Status.RUNNING
        slot.enter(Phase.RUNNING, 9.5)
        os._exit(0)
    os.waitpid(pid, 0)
    assert (slot.role, slot.child, slot.phase, slot.deadline) == (Role.WORKER, 2, Phase.RUNNING, 9.5)
    running = slot.current()
    assert running is not None
    assert (running.id, running.task, running.attempt) == (12, 1, 1)
    assert [e.status for e in slot.claims[0].entries()] == [Status.UNSTARTED, Status.RUNNING, Status.UNSTARTED]
    assert table.tokens() == {77}


def test_a_claim_that_has_no_answer_yet_shows_its_token(table: SlotTable) -> None:
    table.slots[0].assign(Role.WORKER, 1, 0, 0)
    claim = table.slots[0].claims[0]
    claim.open(5)
    assert table.tokens() == {5}
    assert claim.entries() == []


def test_a_claim_that_is_used_again_shows_nothing_of_its_past(table: SlotTable) -> None:
    claim = table.slots[0].claims[0]
    claim.open(5)
    claim.fill(list(range(MAX_JOBS)), [0] * MAX_JOBS, [1] * MAX_JOBS)
    claim.statuses[3] = Status.RUNNING
    claim.close()
    claim.open(6)
    assert claim.entries() == []
    claim.fill([9], [0], [1])
    assert [(e.id, e.status) for e in claim.entries()] == [(9, Status.UNSTARTED)]


def test_a_dead_slot_keeps_its_claims_until_it_is_freed(table: SlotTable) -> None:
    slot = table.slots[1]
    slot.assign(Role.WORKER, 1, 0, 0)
    for number, claim in enumerate(slot.claims):
        claim.open(number + 1)
    slot.mark_dead("signal:SEGV")
    assert slot.state is SlotState.DEAD
    assert slot.cause == "signal:SEGV"
    assert table.tokens() == set(range(1, MAX_CLAIMS + 1))
    assert table.free_slot() is table.slots[0]
    slot.free()
    assert table.tokens() == set()
    assert table.dead() == []


def test_tokens_are_never_the_same_and_fit_a_bigint() -> None:
    assigned = {new_token() for _ in range(10_000)}
    assert len(assigned) == 10_000
    assert all(0 < token < 2**63 for token in assigned)
