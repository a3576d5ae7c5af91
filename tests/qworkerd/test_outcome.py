"""What became of a job can be read after its worker's death, or is told to be unreadable."""

from random import Random

import pytest

from qworker.job import JobState
from qworker.payload import MAX_RESULT
from qworkerd.outcomes.decide import describe
from qworkerd.outcomes.outcome import (
    Completed,
    Failed,
    Outcome,
    Released,
    Retried,
    Session,
    Snoozed,
    Terminated,
    dump,
    load,
)
from qworkerd.shared.claim import CLAIM_SIZE, MAX_JOBS, OUTCOME_BYTES, Claim

ERROR = describe(ValueError("no \U0001f600 \ud800"), 1)
OUTCOMES_OF_EVERY_KIND: list[Outcome] = [
    Completed(0.25, '{"é":[1.0,123456789012345678901234567890]}'),
    Retried(1.5, ERROR),
    Retried(1.5, ERROR, lost=Session(4711, "job 1 #host.1.2")),
    Failed(ERROR, hook=True),
    Snoozed(3.0, unknown_task=True),
    Released(99),
    Terminated(JobState.DISCARDED, 0.5, ERROR),
]


@pytest.fixture
def claim() -> Claim:
    claim = Claim(memoryview(bytearray(CLAIM_SIZE)))
    claim.open(1)
    claim.fill(range(MAX_JOBS), [0] * MAX_JOBS, [1] * MAX_JOBS)
    return claim


@pytest.mark.parametrize("outcome", OUTCOMES_OF_EVERY_KIND, ids=lambda outcome: type(outcome).__name__)
def test_an_outcome_is_read_as_it_was_written(claim: Claim, outcome: Outcome) -> None:
    assert claim.store_outcome(3, dump(Released()))
    assert claim.store_outcome(7, dump(outcome))
    assert load(claim.read_outcome(7)) == outcome
    assert load(claim.read_outcome(3)) == Released()
    assert load(claim.read_outcome(5)) is None


def test_damaged_memory_is_unreadable_and_no_error() -> None:
    chance = Random(7)
    for outcome in OUTCOMES_OF_EVERY_KIND:
        record = dump(outcome)
        for _ in range(300):
            damaged = bytearray(record)
            for _ in range(chance.randint(1, 8)):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            load(bytes(damaged))
            load(record[: chance.randrange(len(record))])
    assert load(b"\xff{}") is None
    assert load(b"\x02[]") is None
    assert load(b"\x02" + b"[" * 50_000) is None


def test_a_place_outside_of_the_memory_is_unreadable() -> None:
    memory = memoryview(bytearray(CLAIM_SIZE))
    claim = Claim(memory)
    claim.open(1)
    claim.fill([1], [0], [1])
    memory[16:-OUTCOME_BYTES] = b"\xff" * (CLAIM_SIZE - OUTCOME_BYTES - 16)
    assert claim.read_outcome(0) is None


def test_the_largest_outcomes_fit_and_what_is_stored_makes_room(claim: Claim) -> None:
    class Worst(Exception):
        pass

    worst = describe(Worst("\x01\U0001f600" * 10_000), 1)
    assert claim.store_outcome(0, dump(Failed(worst, hook=False, lost=Session(1, "x" * 63))))
    claim.clear_outcomes(1)
    largest = dump(Completed(1.0, '"' + "x" * (MAX_RESULT - 2) + '"'))
    assert claim.store_outcome(1, largest)
    assert not claim.store_outcome(2, largest)
    assert claim.read_outcome(2) is None
    claim.clear_outcomes(2)
    assert claim.read_outcome(1) is None
    assert claim.store_outcome(2, largest)
    assert claim.read_outcome(2) == largest


def test_a_claim_that_is_used_again_has_no_outcomes(claim: Claim) -> None:
    assert claim.store_outcome(0, dump(Released()))
    claim.close()
    claim.open(2)
    claim.fill([5], [0], [1])
    assert claim.read_outcome(0) is None
