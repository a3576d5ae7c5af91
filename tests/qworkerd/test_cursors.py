"""Where to claim: what a claim jumps over is its worker's to go on with, or found by a sweep."""

import random
from bisect import bisect_right, insort
from collections.abc import Iterator

import pytest

from qworker.claims import ClaimedJob
from qworkerd.shared.slots import SlotTable
from qworkerd.shared.watermarks import Watermarks
from qworkerd.worker import cursors as module
from qworkerd.worker.cursors import CHEAP_SWEEP, SWEEP_EVERY, SWEEP_SHARE, Cursors
from tests.qworkerd.clock import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


@pytest.fixture
def floors() -> Watermarks:
    return Watermarks(SlotTable(1), ["a", "b"])


@pytest.fixture
def swept(clock: Clock, floors: Watermarks) -> Watermarks:
    """Floors from which somebody has just swept."""
    floors.swept = clock.now
    return floors


A5, A0, B0 = 5, 0, 10


def row(seq: int, queue: str = "a", priority: int = 5) -> ClaimedJob:
    return ClaimedJob(seq, seq, priority, queue, "noop", "{}", 1, 0, False, 0.0, None, 0)


def rows(first: int, last: int, queue: str = "a", priority: int = 5) -> list[ClaimedJob]:
    return [row(seq, queue, priority) for seq in range(first, last + 1)]


def begins(cursors: Cursors, size: int = 10) -> dict[int, int]:
    """Start a claim that is no sweep; return where it begins, unless that is at the front."""
    starts, sweep = cursors.start(size, idle=False)
    assert not sweep
    return {pair: seq for pair, seq in enumerate(starts) if seq}


def test_a_claim_begins_behind_the_last_one_of_its_queue_and_priority(clock: Clock, floors: Watermarks) -> None:
    cursors = Cursors(floors, 1)
    cursors.start(3, idle=True)
    cursors.advance([row(7, "a", 3), row(9, "a", 3), row(8, "b", 0)], 3, sweep=True, took=0)
    assert begins(cursors) == {3: 9, B0: 8}
    cursors.forget()
    assert begins(cursors) == {}


def test_a_claim_begins_behind_those_of_other_workers(swept: Watermarks) -> None:
    first, second = (Cursors(swept, 2) for _ in range(2))
    begins(first)
    first.advance(rows(1, 10), 10, sweep=False, took=0)
    assert begins(second) == {A5: 10}
    assert begins(second) == {A5: 10}  # nobody has announced anything


def test_no_claim_begins_below_the_floors(swept: Watermarks) -> None:
    cursors = Cursors(swept, 2)
    begins(cursors)
    cursors.advance(rows(1, 10), 10, sweep=False, took=0)
    swept.set([30] * 20, swept.release_counts())
    assert begins(cursors)[A5] == 30


def test_a_head_rises_from_the_floors(swept: Watermarks) -> None:
    swept.set([30] * 20, swept.release_counts())
    cursors = Cursors(swept, 2)
    assert begins(cursors)[A5] == 30
    cursors.advance(rows(31, 40), 10, sweep=False, took=0)
    assert begins(Cursors(swept, 2))[A5] == 40


def test_claims_that_are_under_way_together_do_not_meet(swept: Watermarks) -> None:
    workers = [Cursors(swept, 3) for _ in range(3)]
    for number, cursors in enumerate(workers):
        begins(cursors)
        cursors.advance(rows(10 * number + 1, 10 * number + 10), 10, sweep=False, took=0)
    assert [begins(cursors)[A5] for cursors in workers] == [30, 40, 50]
    for number in (2, 0, 1):
        workers[number].advance(rows(10 * number + 31, 10 * number + 40), 10, sweep=False, took=0)
    assert [begins(cursors)[A5] for cursors in workers] == [60, 70, 80]


@pytest.fixture
def announced(swept: Watermarks) -> Cursors:
    """The cursors of a worker whose claim is under way, from 10 to 20."""
    cursors = Cursors(swept, 2)
    begins(cursors)
    cursors.advance(rows(1, 10), 10, sweep=False, took=0)
    assert begins(cursors) == {A5: 10}
    assert swept.claim_positions[A5] == 20
    return cursors


def test_what_was_announced_and_not_taken_its_worker_goes_on_with(announced: Cursors, swept: Watermarks) -> None:
    announced.advance([*rows(21, 24, "a", 0), *rows(11, 16)], 10, sweep=False, took=0)
    assert begins(Cursors(swept, 2)) == {A0: 24, A5: 20}
    assert begins(announced) == {A0: 24, A5: 16}
    announced.advance(rows(17, 29), 13, sweep=False, took=0)
    assert begins(announced)[A5] == 29
    assert swept.claim_positions[A5] == 39


def test_what_was_announced_and_not_come_to_its_worker_goes_on_with(announced: Cursors, swept: Watermarks) -> None:
    announced.advance(rows(21, 30, "a", 0), 10, sweep=False, took=0)
    assert begins(Cursors(swept, 2)) == {A0: 30, A5: 20}
    assert begins(announced) == {A0: 30, A5: 10}


def test_a_claim_that_has_failed_is_made_again_from_the_same_place(announced: Cursors, swept: Watermarks) -> None:
    announced.fail(sweep=False)
    assert begins(Cursors(swept, 2)) == {A5: 20}
    assert begins(announced) == {A5: 10}
    announced.fail(sweep=False)
    assert begins(announced) == {A5: 10}


def test_a_sweep_that_has_failed_changes_nothing(announced: Cursors, swept: Watermarks, clock: Clock) -> None:
    announced.advance(rows(11, 20), 10, sweep=False, took=0)
    clock.now += SWEEP_EVERY
    assert announced.start(10, idle=False)[1]
    announced.fail(sweep=True)
    assert begins(announced) == {A5: 20}


@pytest.mark.parametrize("last", [10, 13])
def test_a_head_that_went_too_far_comes_back(announced: Cursors, swept: Watermarks, last: int) -> None:
    other = Cursors(swept, 2)
    begins(other)
    announced.advance(rows(11, last), 10, sweep=False, took=0)
    other.advance([], 10, sweep=False, took=0)
    assert begins(other) == begins(announced) == {A5: last}


def test_what_has_come_between_a_head_that_came_back_and_the_claims_before_it_is_not_jumped_over(
    announced: Cursors, swept: Watermarks
) -> None:
    other = Cursors(swept, 2)
    begins(other)
    other.advance(rows(21, 30), 10, sweep=False, took=0)
    assert begins(other) == {A5: 30}
    announced.advance(rows(11, 13), 10, sweep=False, took=0)  # then a hundred more are committed at once
    other.advance(rows(31, 40), 10, sweep=False, took=0)
    assert begins(announced) == {A5: 13}


def test_a_head_that_a_dead_worker_left_too_far_comes_back_with_a_sweep(announced: Cursors, swept: Watermarks) -> None:
    other = Cursors(swept, 2)
    assert other.start(10, idle=True)[1]
    other.advance([row(12)], 10, sweep=True, took=0)
    assert begins(other) == {A5: 12}


def test_what_a_sweep_finds_behind_the_head_its_worker_goes_on_with_alone(swept: Watermarks, clock: Clock) -> None:
    first, second = (Cursors(swept, 2) for _ in range(2))
    begins(first)
    first.advance(rows(101, 110), 10, sweep=False, took=0)
    clock.now += SWEEP_EVERY
    assert second.start(10, idle=False) == ([0] * 20, True)
    second.advance(rows(1, 10), 10, sweep=True, took=0)
    assert begins(second) == {A5: 10}
    assert begins(first) == {A5: 110}
    second.advance(rows(11, 20), 10, sweep=False, took=0)
    assert begins(second) == {A5: 20}
    second.advance([*rows(21, 22), *rows(121, 128)], 10, sweep=False, took=0)
    assert begins(second) == {A5: 128}


@pytest.fixture
def behind(announced: Cursors, swept: Watermarks) -> Cursors:
    """The cursors of a worker that goes on alone from 16 while the head is at 20."""
    announced.advance([*rows(21, 24, "a", 0), *rows(11, 16)], 10, sweep=False, took=0)
    assert begins(announced) == {A0: 24, A5: 16}
    return announced


@pytest.mark.parametrize("found", [[], [row(18)]])
def test_who_has_found_all_that_is_behind_the_head_goes_back_to_it(
    behind: Cursors, swept: Watermarks, found: list[ClaimedJob]
) -> None:
    behind.advance(found, 10, sweep=False, took=0)
    other = Cursors(swept, 2)
    assert begins(behind) == begins(other) == {A0: 24, A5: found[0][0] if found else 20}
    other.advance(rows(21, 30), 10, sweep=False, took=0)
    assert begins(behind) == {A0: 24, A5: 30}


def test_who_forgets_has_no_place_of_its_own(behind: Cursors, swept: Watermarks) -> None:
    behind.forget()
    assert begins(behind) == {}
    behind.advance(rows(1, 10), 10, sweep=False, took=0)
    assert begins(behind) == {A5: 10}


def test_a_claim_that_was_filled_from_two_pairs_is_followed_by_one_that_announces_nothing(swept: Watermarks) -> None:
    cursors = Cursors(swept, 2)
    begins(cursors)
    cursors.advance([*rows(11, 12, "a", 0), *rows(1, 8)], 10, sweep=False, took=0)
    assert begins(cursors) == begins(Cursors(swept, 2)) == {A0: 12, A5: 8}


def test_a_sweep_that_had_no_room_for_a_pair_leaves_it_alone(swept: Watermarks, clock: Clock) -> None:
    cursors = Cursors(swept, 2)
    begins(cursors)
    cursors.advance([row(50, "b", 0)], 1, sweep=False, took=0)
    clock.now += SWEEP_EVERY
    assert cursors.start(1, idle=False)[1]
    cursors.advance([row(51, "a", 0)], 1, sweep=True, took=0)
    assert begins(cursors) == {A0: 51, B0: 50}


def test_a_sweep_begins_at_the_floors(clock: Clock, floors: Watermarks) -> None:
    places = list(range(20))
    floors.set(places, floors.release_counts())
    assert Cursors(floors, 1).start(1, idle=False) == (places, True)


def test_an_idle_worker_sweeps_and_of_the_busy_ones_one_a_second(clock: Clock, floors: Watermarks) -> None:
    first, second = (Cursors(floors, 2) for _ in range(2))
    assert first.start(1, idle=False)[1]
    first.advance([row(5)], 1, sweep=True, took=0)
    assert not second.start(1, idle=False)[1]
    assert second.start(1, idle=True)[1]
    clock.now += SWEEP_EVERY - 0.01
    assert not first.start(1, idle=False)[1]
    clock.now += 0.01
    assert first.start(1, idle=False)[1]
    assert not second.start(1, idle=False)[1]


def test_what_was_handed_back_is_swept_for_at_once(clock: Clock) -> None:
    table = SlotTable(2)
    floors = Watermarks(table, ["a"])
    first, second = (Cursors(floors, 2) for _ in range(2))
    floors.set([50] * 10, floors.release_counts())
    assert first.start(1, idle=False)[1]
    assert not second.start(1, idle=False)[1]
    floors.report_release(table.slots[0], 7)
    assert second.start(1, idle=False) == ([6] * 10, True)
    assert not first.start(1, idle=False)[1]


@pytest.mark.parametrize("processes", [1, 8])
def test_sweeps_of_all_workers_together_take_no_more_than_their_share(
    clock: Clock, floors: Watermarks, processes: int
) -> None:
    cursors, swept, took = Cursors(floors, processes), 0.0, 0.4
    began = clock.now
    while clock.now < began + 1000 * processes:
        _, sweep = cursors.start(1, idle=True)
        clock.now += took if sweep else 0.01
        swept += took if sweep else 0.0
        cursors.advance([], 1, sweep=sweep, took=took if sweep else 0.01)
    assert (swept - took) * processes / (clock.now - began) <= 1 / SWEEP_SHARE
    assert swept > 0


def test_sweeps_are_put_off_when_they_were_dear_twice_in_a_row(clock: Clock, floors: Watermarks) -> None:
    cursors = Cursors(floors, 8)
    for took in (CHEAP_SWEEP, CHEAP_SWEEP, 1.0, CHEAP_SWEEP, 1.0):
        cursors.start(1, idle=True)
        cursors.advance([], 1, sweep=True, took=took)
        assert cursors.wait() == 0.0
    cursors.start(1, idle=True)
    cursors.advance([], 1, sweep=True, took=2.0)
    assert cursors.wait() == SWEEP_SHARE * 8
    assert not cursors.start(1, idle=True)[1]


class Hall:
    """Workers on one queue of two priorities: their claims overlap, fail, and die with their workers."""

    def __init__(self, floors: Watermarks, clock: Clock, chance: random.Random, workers: int, faults: float) -> None:
        self.floors, self.clock, self.chance, self.faults = floors, clock, chance, faults
        self.visible: dict[int, list[int]] = {0: [], A5: []}
        #: When each job could first be claimed, and how long those that are claimed have waited.
        self.shown: dict[int, float] = {}
        self.waited: dict[int, float] = {}
        self.claims: list[Iterator[None]] = [self.work() for _ in range(workers)]

    def show(self, pair: int, seq: int) -> None:
        """Have a job become visible."""
        insort(self.visible[pair], seq)
        self.shown[seq] = self.clock.now

    def work(self) -> Iterator[None]:
        """Claim for ever; others go on between two steps."""
        cursors, dry = Cursors(self.floors, 4), False
        while True:
            size = self.chance.choice([1, 8, 8, 8])
            starts, sweep = cursors.start(size, idle=dry)
            yield
            fate = self.chance.random()
            if fate < self.faults:  # refused: nothing is done
                cursors.fail(sweep=sweep)
                continue
            if fate < self.faults * 1.5:  # the worker dies before the server has done anything
                cursors, dry = Cursors(self.floors, 4), False
                continue
            taken = self.take(starts, size)
            yield  # locked, or committed: for others it is the same
            cursors.advance(taken, size, sweep=sweep, took=0.0)
            dry = len(taken) < size

    def take(self, starts: list[int], size: int) -> list[ClaimedJob]:
        """Do what the server does."""
        taken: list[ClaimedJob] = []
        for pair, visible in self.visible.items():
            first = bisect_right(visible, starts[pair])
            found = visible[first : first + size - len(taken)]
            del visible[first : first + len(found)]
            taken += [row(seq, "a", pair) for seq in found]
        for seq, *_ in taken:
            self.waited[seq] = self.clock.now - self.shown[seq]
        return taken

    def step(self) -> None:
        """Have one of the workers go on."""
        self.clock.now += 0.001
        next(self.chance.choice(self.claims))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("workers", [2, 5])
@pytest.mark.parametrize(("faults", "longest"), [(0.0, SWEEP_EVERY), (0.02, 10 * SWEEP_EVERY)], ids=["well", "ill"])
def test_a_job_that_was_jumped_over_waits_for_a_second_at_most(
    clock: Clock, floors: Watermarks, seed: int, workers: int, faults: float, longest: float
) -> None:
    """Where claims fail and workers die, a sweep may be lost, or its worker: each costs a second."""
    chance = random.Random(seed)
    hall = Hall(floors, clock, chance, workers, faults)
    late: list[tuple[int, int]] = []
    for seq in range(1, 20_000):
        pair = A5 if chance.random() < 0.9 else 0
        if pair == A5 and chance.random() < 0.01:  # of both, a small sweep would take the more urgent ones
            late.append((pair, seq))
        else:
            hall.show(pair, seq)
    while any(hall.visible.values()) or late:
        rest = [] if any(hall.visible.values()) else late
        jumped = [job for job in late if job[1] < floors.claim_positions[job[0]]] or rest
        if jumped and chance.random() < 0.05:
            job = chance.choice(jumped)
            late.remove(job)
            hall.show(*job)
        hall.step()
    assert len(hall.waited) == 19_999
    behind = [wait for seq, wait in hall.waited.items() if hall.shown[seq] > 1000.0]
    assert behind
    assert max(behind) <= longest + 0.5


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("faults", "longest"), [(0.0, 0.15), (0.02, SWEEP_EVERY + 0.1)], ids=["well", "ill"])
def test_in_a_queue_that_runs_empty_again_and_again_no_job_waits(
    clock: Clock, floors: Watermarks, seed: int, faults: float, longest: float
) -> None:
    chance = random.Random(seed)
    hall, seq = Hall(floors, clock, chance, 3, faults), 0
    for _ in range(300):
        for _ in range(chance.choice([1, 2, 40])):
            seq += 1
            hall.show(chance.choice([0, A5]), seq)
        for _ in range(chance.choice([5, 60])):
            hall.step()
    while any(hall.visible.values()):
        hall.step()
    assert len(hall.waited) == seq
    assert max(hall.waited.values()) <= longest
