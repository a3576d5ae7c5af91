"""How much to claim, and from where: what a claim cursor jumps over is found by a sweep."""

import random
from bisect import bisect_right, insort

import pytest

from qworkerd.floors import Floors
from qworkerd.slots import SlotTable
from qworkerd.worker import pace
from qworkerd.worker.pace import CHEAP, EVERY, SHARE, WORK, Cursors, Pace

# Batch size


def test_batches_of_short_jobs_double_up_to_the_limit() -> None:
    paced, sizes = Pace(256), []
    for _ in range(10):
        sizes.append(paced.size)
        paced.note(paced.size, paced.size * 1e-5)
    assert sizes == [1, 2, 4, 8, 16, 32, 64, 128, 256, 256]


@pytest.mark.parametrize("limit", [1, 7])
def test_no_batch_is_larger_than_the_limit(limit: int) -> None:
    paced = Pace(limit)
    for _ in range(10):
        paced.note(paced.size, 0.0)
    assert paced.size == limit


def test_a_batch_of_long_jobs_is_followed_by_a_small_one() -> None:
    paced = Pace(256)
    for _ in range(10):
        paced.note(256, 256e-5)
    paced.note(1, 2 * WORK)
    assert paced.size == 1
    paced.note(1, WORK / 10)
    assert 1 <= paced.size <= 2


def test_a_batch_holds_as_much_work_as_it_should() -> None:
    paced = Pace(256)
    for _ in range(30):
        paced.note(paced.size, paced.size * WORK / 20)
    assert 18 <= paced.size <= 20


def test_a_batch_that_was_handed_back_whole_says_nothing() -> None:
    paced = Pace(256)
    paced.note(1, 1e-5)
    paced.note(0, 3.0)
    assert paced.size == 2


# Cursors


class Clock:
    """Stands for monotonic()."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pace, "monotonic", clock)
    return clock


@pytest.fixture
def floors() -> Floors:
    return Floors(SlotTable(1), ["a", "b"])


def row(seq: int, queue: str = "a", priority: int = 5) -> tuple[int, int, int, str]:
    return (seq, seq, priority, queue)


def test_a_claim_begins_behind_the_last_one_of_its_queue_and_priority(clock: Clock, floors: Floors) -> None:
    cursors = Cursors(floors, 1)
    cursors.start(idle=True)
    cursors.advance([row(7, "a", 3), row(9, "a", 3), row(8, "b", 0)], sweep=True, took=0)
    starts, sweep = cursors.start(idle=False)
    assert not sweep
    assert {number: seq for number, seq in enumerate(starts) if seq} == {3: 9, 10: 8}
    cursors.forget()
    assert cursors.start(idle=False) == ([0] * 20, False)


def test_a_sweep_begins_at_the_floors(clock: Clock, floors: Floors) -> None:
    places = list(range(20))
    floors.set(places, floors.returns())
    assert Cursors(floors, 1).start(idle=False) == (places, True)


def test_an_idle_worker_sweeps_and_of_the_busy_ones_one_a_second(clock: Clock, floors: Floors) -> None:
    first, second = (Cursors(floors, 2) for _ in range(2))
    assert first.start(idle=False)[1]
    first.advance([row(5)], sweep=True, took=0)
    assert not second.start(idle=False)[1]
    assert second.start(idle=True)[1]
    clock.now += EVERY - 0.01
    assert not first.start(idle=False)[1]
    clock.now += 0.01
    assert first.start(idle=False)[1]
    assert not second.start(idle=False)[1]


def test_what_was_handed_back_is_swept_for_at_once(clock: Clock) -> None:
    table = SlotTable(2)
    floors = Floors(table, ["a"])
    first, second = (Cursors(floors, 2) for _ in range(2))
    floors.set([50] * 10, floors.returns())
    assert first.start(idle=False)[1]
    assert not second.start(idle=False)[1]
    floors.lower(table.slots[0], 7)
    assert second.start(idle=False) == ([6] * 10, True)
    assert not first.start(idle=False)[1]


@pytest.mark.parametrize("processes", [1, 8])
def test_sweeps_of_all_workers_together_take_no_more_than_their_share(
    clock: Clock, floors: Floors, processes: int
) -> None:
    cursors, swept, took = Cursors(floors, processes), 0.0, 0.4
    began = clock.now
    while clock.now < began + 1000 * processes:
        _, sweep = cursors.start(idle=True)
        clock.now += took if sweep else 0.01
        swept += took if sweep else 0.0
        cursors.advance([], sweep=sweep, took=took if sweep else 0.01)
    assert (swept - took) * processes / (clock.now - began) <= 1 / SHARE
    assert swept > 0


def test_sweeps_are_put_off_when_they_were_dear_twice_in_a_row(clock: Clock, floors: Floors) -> None:
    cursors = Cursors(floors, 8)
    for took in (CHEAP, CHEAP, 1.0, CHEAP, 1.0):
        cursors.advance([], sweep=True, took=took)
        assert cursors.wait() == 0.0
    cursors.advance([], sweep=True, took=2.0)
    assert cursors.wait() == SHARE * 8
    assert not cursors.start(idle=True)[1]


@pytest.mark.parametrize("seed", range(10))
def test_under_full_load_a_job_that_was_jumped_over_waits_for_a_second_at_most(
    clock: Clock, floors: Floors, seed: int
) -> None:
    chance, took = random.Random(seed), 0.004
    workers = [Cursors(floors, 2) for _ in range(2)]
    late = {chance.randrange(1, 5000) for _ in range(50)}
    visible = [seq for seq in range(1, 5000) if seq not in late]
    shown: dict[int, float] = {}
    longest = 0.0
    while visible:
        cursors = chance.choice(workers)
        jumped = [seq for seq in late if seq < max(worker.cursors[5] for worker in workers)]
        if jumped and chance.random() < 0.1:
            seq = chance.choice(jumped)
            late.discard(seq)
            shown[seq] = clock.now
            insort(visible, seq)
        starts, sweep = cursors.start(idle=False)
        first = bisect_right(visible, starts[5])
        rows = [row(seq) for seq in visible[first : first + 8]]
        del visible[first : first + 8]
        clock.now += took
        cursors.advance(rows, sweep=sweep, took=took)
        longest = max([longest, *(clock.now - shown.pop(seq) for seq, *_ in rows if seq in shown)])
    assert 0 < longest <= EVERY + 2 * took
