"""Where claims start: what a claim passes, its worker claims itself, or a sweep finds."""

import random
from bisect import bisect_right, insort
from collections.abc import Iterator

import pytest

from qworker.claims import ClaimedJob
from qworkerd.shared.slots import SlotTable
from qworkerd.shared.watermarks import Watermarks
from qworkerd.worker import cursors as module
from qworkerd.worker.cursors import CHEAP_SWEEP, SWEEP_FACTOR, SWEEP_INTERVAL, Cursors
from tests.qworkerd.clock import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


@pytest.fixture
def watermarks() -> Watermarks:
    return Watermarks(SlotTable(1), ["a", "b"])


@pytest.fixture
def swept(clock: Clock, watermarks: Watermarks) -> Watermarks:
    """Watermarks from which a worker has just swept."""
    watermarks.swept = clock.now
    return watermarks


A5, A0, B0 = 5, 0, 10


def row(seq: int, queue: str = "a", priority: int = 5) -> ClaimedJob:
    return ClaimedJob(seq, seq, priority, queue, "noop", "{}", 1, 0, False, 0.0, None, 0)


def rows(first: int, last: int, queue: str = "a", priority: int = 5) -> list[ClaimedJob]:
    return [row(seq, queue, priority) for seq in range(first, last + 1)]


def positions(cursors: Cursors, size: int = 10) -> dict[int, int]:
    """Start a claim that is not a sweep; return where it starts in the lanes in which that is not 0."""
    starts, sweep = cursors.start(size, idle=False)
    assert not sweep
    return {lane: seq for lane, seq in enumerate(starts) if seq}


def test_a_claim_starts_behind_the_last_one_of_its_lane(clock: Clock, watermarks: Watermarks) -> None:
    cursors = Cursors(watermarks, 1)
    cursors.start(3, idle=True)
    cursors.advance([row(7, "a", 3), row(9, "a", 3), row(8, "b", 0)], 3, sweep=True, duration=0)
    assert positions(cursors) == {3: 9, B0: 8}
    cursors.reset()
    assert positions(cursors) == {}


def test_a_claim_starts_behind_those_of_other_workers(swept: Watermarks) -> None:
    first, second = (Cursors(swept, 2) for _ in range(2))
    positions(first)
    first.advance(rows(1, 10), 10, sweep=False, duration=0)
    assert positions(second) == {A5: 10}
    assert positions(second) == {A5: 10}  # no claim has advanced the position


def test_no_claim_starts_below_the_watermarks(swept: Watermarks) -> None:
    cursors = Cursors(swept, 2)
    positions(cursors)
    cursors.advance(rows(1, 10), 10, sweep=False, duration=0)
    swept.set([30] * 20, swept.release_counts())
    assert positions(cursors)[A5] == 30


def test_a_claim_position_rises_to_the_watermark(swept: Watermarks) -> None:
    swept.set([30] * 20, swept.release_counts())
    cursors = Cursors(swept, 2)
    assert positions(cursors)[A5] == 30
    cursors.advance(rows(31, 40), 10, sweep=False, duration=0)
    assert positions(Cursors(swept, 2))[A5] == 40


def test_concurrent_claims_do_not_overlap(swept: Watermarks) -> None:
    workers = [Cursors(swept, 3) for _ in range(3)]
    for number, cursors in enumerate(workers):
        positions(cursors)
        cursors.advance(rows(10 * number + 1, 10 * number + 10), 10, sweep=False, duration=0)
    assert [positions(cursors)[A5] for cursors in workers] == [30, 40, 50]
    for number in (2, 0, 1):
        workers[number].advance(rows(10 * number + 31, 10 * number + 40), 10, sweep=False, duration=0)
    assert [positions(cursors)[A5] for cursors in workers] == [60, 70, 80]


@pytest.fixture
def claiming(swept: Watermarks) -> Cursors:
    """The cursors of a worker whose claim is in progress, from 10 to 20."""
    cursors = Cursors(swept, 2)
    positions(cursors)
    cursors.advance(rows(1, 10), 10, sweep=False, duration=0)
    assert positions(cursors) == {A5: 10}
    assert swept.claim_positions[A5] == 20
    return cursors


def test_a_worker_claims_the_rest_of_its_range_itself(claiming: Cursors, swept: Watermarks) -> None:
    claiming.advance([*rows(21, 24, "a", 0), *rows(11, 16)], 10, sweep=False, duration=0)
    assert positions(Cursors(swept, 2)) == {A0: 24, A5: 20}
    assert positions(claiming) == {A0: 24, A5: 16}
    claiming.advance(rows(17, 29), 13, sweep=False, duration=0)
    assert positions(claiming)[A5] == 29
    assert swept.claim_positions[A5] == 39


def test_a_worker_claims_a_range_that_its_claim_did_not_reach_itself(claiming: Cursors, swept: Watermarks) -> None:
    claiming.advance(rows(21, 30, "a", 0), 10, sweep=False, duration=0)
    assert positions(Cursors(swept, 2)) == {A0: 30, A5: 20}
    assert positions(claiming) == {A0: 30, A5: 10}


def test_a_failed_claim_is_repeated_from_the_same_position(claiming: Cursors, swept: Watermarks) -> None:
    claiming.fail(sweep=False)
    assert positions(Cursors(swept, 2)) == {A5: 20}
    assert positions(claiming) == {A5: 10}
    claiming.fail(sweep=False)
    assert positions(claiming) == {A5: 10}


def test_a_failed_sweep_changes_nothing(claiming: Cursors, swept: Watermarks, clock: Clock) -> None:
    claiming.advance(rows(11, 20), 10, sweep=False, duration=0)
    clock.now += SWEEP_INTERVAL
    assert claiming.start(10, idle=False)[1]
    claiming.fail(sweep=True)
    assert positions(claiming) == {A5: 20}


@pytest.mark.parametrize("last", [10, 13])
def test_a_position_that_was_advanced_too_far_is_moved_back(claiming: Cursors, swept: Watermarks, last: int) -> None:
    other = Cursors(swept, 2)
    positions(other)
    claiming.advance(rows(11, last), 10, sweep=False, duration=0)
    other.advance([], 10, sweep=False, duration=0)
    assert positions(other) == positions(claiming) == {A5: last}


def test_jobs_between_a_position_that_was_moved_back_and_earlier_claims_are_not_passed(
    claiming: Cursors, swept: Watermarks
) -> None:
    other = Cursors(swept, 2)
    positions(other)
    other.advance(rows(21, 30), 10, sweep=False, duration=0)
    assert positions(other) == {A5: 30}
    claiming.advance(rows(11, 13), 10, sweep=False, duration=0)  # then a hundred more are committed
    other.advance(rows(31, 40), 10, sweep=False, duration=0)
    assert positions(claiming) == {A5: 13}


def test_a_sweep_moves_back_the_position_of_a_dead_worker(claiming: Cursors, swept: Watermarks) -> None:
    other = Cursors(swept, 2)
    assert other.start(10, idle=True)[1]
    other.advance([row(12)], 10, sweep=True, duration=0)
    assert positions(other) == {A5: 12}


def test_a_worker_continues_alone_from_what_its_sweep_has_found(swept: Watermarks, clock: Clock) -> None:
    first, second = (Cursors(swept, 2) for _ in range(2))
    positions(first)
    first.advance(rows(101, 110), 10, sweep=False, duration=0)
    clock.now += SWEEP_INTERVAL
    assert second.start(10, idle=False) == ([0] * 20, True)
    second.advance(rows(1, 10), 10, sweep=True, duration=0)
    assert positions(second) == {A5: 10}
    assert positions(first) == {A5: 110}
    second.advance(rows(11, 20), 10, sweep=False, duration=0)
    assert positions(second) == {A5: 20}
    second.advance([*rows(21, 22), *rows(121, 128)], 10, sweep=False, duration=0)
    assert positions(second) == {A5: 128}


@pytest.fixture
def behind(claiming: Cursors, swept: Watermarks) -> Cursors:
    """The cursors of a worker that continues alone from 16 while the claim position is 20."""
    claiming.advance([*rows(21, 24, "a", 0), *rows(11, 16)], 10, sweep=False, duration=0)
    assert positions(claiming) == {A0: 24, A5: 16}
    return claiming


@pytest.mark.parametrize("found", [[], [row(18)]])
def test_a_worker_returns_to_the_shared_position_when_nothing_is_left_below_it(
    behind: Cursors, swept: Watermarks, found: list[ClaimedJob]
) -> None:
    behind.advance(found, 10, sweep=False, duration=0)
    other = Cursors(swept, 2)
    assert positions(behind) == positions(other) == {A0: 24, A5: found[0][0] if found else 20}
    other.advance(rows(21, 30), 10, sweep=False, duration=0)
    assert positions(behind) == {A0: 24, A5: 30}


def test_a_worker_that_forgets_has_no_position_of_its_own(behind: Cursors, swept: Watermarks) -> None:
    behind.reset()
    assert positions(behind) == {}
    behind.advance(rows(1, 10), 10, sweep=False, duration=0)
    assert positions(behind) == {A5: 10}


def test_a_claim_filled_from_two_lanes_is_followed_by_one_that_advances_nothing(swept: Watermarks) -> None:
    cursors = Cursors(swept, 2)
    positions(cursors)
    cursors.advance([*rows(11, 12, "a", 0), *rows(1, 8)], 10, sweep=False, duration=0)
    assert positions(cursors) == positions(Cursors(swept, 2)) == {A0: 12, A5: 8}


def test_a_sweep_without_a_job_of_a_lane_leaves_its_position(swept: Watermarks, clock: Clock) -> None:
    cursors = Cursors(swept, 2)
    positions(cursors)
    cursors.advance([row(50, "b", 0)], 1, sweep=False, duration=0)
    clock.now += SWEEP_INTERVAL
    assert cursors.start(1, idle=False)[1]
    cursors.advance([row(51, "a", 0)], 1, sweep=True, duration=0)
    assert positions(cursors) == {A0: 51, B0: 50}


def test_a_sweep_starts_at_the_watermarks(clock: Clock, watermarks: Watermarks) -> None:
    seqs = list(range(20))
    watermarks.set(seqs, watermarks.release_counts())
    assert Cursors(watermarks, 1).start(1, idle=False) == (seqs, True)


def test_an_idle_worker_sweeps_and_one_busy_worker_a_second(clock: Clock, watermarks: Watermarks) -> None:
    first, second = (Cursors(watermarks, 2) for _ in range(2))
    assert first.start(1, idle=False)[1]
    first.advance([row(5)], 1, sweep=True, duration=0)
    assert not second.start(1, idle=False)[1]
    assert second.start(1, idle=True)[1]
    clock.now += SWEEP_INTERVAL - 0.01
    assert not first.start(1, idle=False)[1]
    clock.now += 0.01
    assert first.start(1, idle=False)[1]
    assert not second.start(1, idle=False)[1]


def test_a_release_requests_a_sweep(clock: Clock) -> None:
    table = SlotTable(2)
    watermarks = Watermarks(table, ["a"])
    first, second = (Cursors(watermarks, 2) for _ in range(2))
    watermarks.set([50] * 10, watermarks.release_counts())
    assert first.start(1, idle=False)[1]
    assert not second.start(1, idle=False)[1]
    watermarks.report_release(table.slots[0], 7)
    assert second.start(1, idle=False) == ([6] * 10, True)
    assert not first.start(1, idle=False)[1]


@pytest.mark.parametrize("processes", [1, 8])
def test_the_sweeps_of_all_workers_take_no_more_than_their_share(
    clock: Clock, watermarks: Watermarks, processes: int
) -> None:
    cursors, swept, took = Cursors(watermarks, processes), 0.0, 0.4
    started = clock.now
    while clock.now < started + 1000 * processes:
        _, sweep = cursors.start(1, idle=True)
        clock.now += took if sweep else 0.01
        swept += took if sweep else 0.0
        cursors.advance([], 1, sweep=sweep, duration=took if sweep else 0.01)
    assert (swept - took) * processes / (clock.now - started) <= 1 / SWEEP_FACTOR
    assert swept > 0


def test_two_expensive_sweeps_in_a_row_delay_the_next(clock: Clock, watermarks: Watermarks) -> None:
    cursors = Cursors(watermarks, 8)
    for took in (CHEAP_SWEEP, CHEAP_SWEEP, 1.0, CHEAP_SWEEP, 1.0):
        cursors.start(1, idle=True)
        cursors.advance([], 1, sweep=True, duration=took)
        assert cursors.next_sweep_in() == 0.0
    cursors.start(1, idle=True)
    cursors.advance([], 1, sweep=True, duration=2.0)
    assert cursors.next_sweep_in() == SWEEP_FACTOR * 8
    assert not cursors.start(1, idle=True)[1]


class Workers:
    """Workers on two lanes of a queue: their claims overlap and fail, and workers die."""

    def __init__(
        self, watermarks: Watermarks, clock: Clock, chance: random.Random, workers: int, faults: float
    ) -> None:
        self.watermarks, self.clock, self.chance, self.faults = watermarks, clock, chance, faults
        self.visible: dict[int, list[int]] = {0: [], A5: []}
        #: When each job became visible, and how long the claimed ones have waited.
        self.shown: dict[int, float] = {}
        self.waited: dict[int, float] = {}
        self.claims: list[Iterator[None]] = [self.work() for _ in range(workers)]

    def show(self, lane: int, seq: int) -> None:
        """Make a job visible."""
        insort(self.visible[lane], seq)
        self.shown[seq] = self.clock.now

    def work(self) -> Iterator[None]:
        """Claim forever; other workers continue between two steps."""
        cursors, exhausted = Cursors(self.watermarks, 4), False
        while True:
            size = self.chance.choice([1, 8, 8, 8])
            starts, sweep = cursors.start(size, idle=exhausted)
            yield
            fate = self.chance.random()
            if fate < self.faults:  # refused: nothing is claimed
                cursors.fail(sweep=sweep)
                continue
            if fate < self.faults * 1.5:  # the worker dies before the server has claimed anything
                cursors, exhausted = Cursors(self.watermarks, 4), False
                continue
            taken = self.take(starts, size)
            yield  # locked or committed: other claims skip the rows either way
            cursors.advance(taken, size, sweep=sweep, duration=0.0)
            exhausted = len(taken) < size

    def take(self, starts: list[int], size: int) -> list[ClaimedJob]:
        """Claim as the server does."""
        taken: list[ClaimedJob] = []
        for lane, visible in self.visible.items():
            first = bisect_right(visible, starts[lane])
            found = visible[first : first + size - len(taken)]
            del visible[first : first + len(found)]
            taken += [row(seq, "a", lane) for seq in found]
        for seq, *_ in taken:
            self.waited[seq] = self.clock.now - self.shown[seq]
        return taken

    def step(self) -> None:
        """Continue one of the workers."""
        self.clock.now += 0.001
        next(self.chance.choice(self.claims))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("workers", [2, 5])
@pytest.mark.parametrize(
    ("faults", "longest"), [(0.0, SWEEP_INTERVAL), (0.02, 10 * SWEEP_INTERVAL)], ids=["no faults", "faults"]
)
def test_a_job_that_was_passed_waits_for_a_second_at_most(
    clock: Clock, watermarks: Watermarks, seed: int, workers: int, faults: float, longest: float
) -> None:
    """If claims fail and workers die, a sweep may be lost, or its worker: each costs a second."""
    chance = random.Random(seed)
    model = Workers(watermarks, clock, chance, workers, faults)
    late: list[tuple[int, int]] = []
    for seq in range(1, 20_000):
        lane = A5 if chance.random() < 0.9 else 0
        if lane == A5 and chance.random() < 0.01:  # in both lanes, a small sweep would claim the more urgent jobs only
            late.append((lane, seq))
        else:
            model.show(lane, seq)
    while any(model.visible.values()) or late:
        rest = [] if any(model.visible.values()) else late
        passed = [job for job in late if job[1] < watermarks.claim_positions[job[0]]] or rest
        if passed and chance.random() < 0.05:
            job = chance.choice(passed)
            late.remove(job)
            model.show(*job)
        model.step()
    assert len(model.waited) == 19_999
    behind = [wait for seq, wait in model.waited.items() if model.shown[seq] > 1000.0]
    assert behind
    assert max(behind) <= longest + 0.5


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    ("faults", "longest"), [(0.0, 0.15), (0.02, SWEEP_INTERVAL + 0.1)], ids=["no faults", "faults"]
)
def test_no_job_waits_in_a_queue_that_is_often_empty(
    clock: Clock, watermarks: Watermarks, seed: int, faults: float, longest: float
) -> None:
    chance = random.Random(seed)
    model, seq = Workers(watermarks, clock, chance, 3, faults), 0
    for _ in range(300):
        for _ in range(chance.choice([1, 2, 40])):
            seq += 1
            model.show(chance.choice([0, A5]), seq)
        for _ in range(chance.choice([5, 60])):
            model.step()
    while any(model.visible.values()):
        model.step()
    assert len(model.waited) == seq
    assert max(model.waited.values()) <= longest
