"""How much to claim, and from where: what a claim cursor jumps over is found by a sweep."""

import random
from bisect import bisect_right, insort

import pytest

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


def row(seq: int, queue: str = "default", priority: int = 5) -> tuple[int, int, int, str]:
    return (seq, seq, priority, queue)


def test_a_claim_begins_behind_the_last_one_of_its_queue_and_priority(clock: Clock) -> None:
    cursors = Cursors(["a", "b"], 1)
    assert (cursors.queues[0], cursors.queues[19], cursors.priorities[:11]) == ("a", "b", [*range(10), 0])
    cursors.advance([row(7, "a", 3), row(9, "a", 3), row(8, "b", 0)], sweep=True, took=0)
    starts, sweep = cursors.start(idle=False)
    assert not sweep
    assert {number: seq for number, seq in enumerate(starts) if seq} == {3: 9, 10: 8}


def test_an_idle_worker_sweeps_and_a_busy_one_once_a_second(clock: Clock) -> None:
    cursors = Cursors(["default"], 1)
    assert cursors.start(idle=False) == ([0] * 10, True)
    cursors.advance([row(5)], sweep=True, took=0)
    assert cursors.start(idle=True) == ([0] * 10, True)
    assert not cursors.start(idle=False)[1]
    clock.now += EVERY
    assert cursors.start(idle=False) == ([0] * 10, True)


@pytest.mark.parametrize("processes", [1, 8])
def test_sweeps_of_all_workers_together_take_no_more_than_their_share(clock: Clock, processes: int) -> None:
    cursors, swept, took = Cursors(["default"], processes), 0.0, 0.4
    began = clock.now
    while clock.now < began + 1000 * processes:
        _, sweep = cursors.start(idle=True)
        clock.now += took if sweep else 0.01
        swept += took if sweep else 0.0
        cursors.advance([], sweep=sweep, took=took if sweep else 0.01)
    assert swept * processes / (clock.now - began) <= 1 / SHARE
    assert swept > 0


def test_a_cheap_sweep_is_never_put_off(clock: Clock) -> None:
    cursors = Cursors(["default"], 8)
    cursors.advance([], sweep=True, took=CHEAP)
    assert cursors.wait() == 0.0
    cursors.advance([], sweep=True, took=1.0)
    assert cursors.wait() == SHARE * 8
    assert not cursors.start(idle=True)[1]


# A model of the index, with workers, producers and a clock

Row = tuple[int, int, int, str]
PAIRS = [(queue, priority) for queue in ("a", "b") for priority in (0, 5, 9)]
WORKERS = 3


class World:
    """What the database would show, and what the workers make of it."""

    def __init__(self, clock: Clock, seed: int) -> None:
        self.clock = clock
        self.chance = random.Random(seed)
        #: Places that may be claimed, in order, and the number of those given out.
        self.visible: dict[tuple[str, int], list[int]] = {pair: [] for pair in PAIRS}
        self.drawn = 0
        #: Places of transactions that have not committed.
        self.hidden: list[tuple[tuple[str, int], int]] = []
        self.workers = [Cursors(["a", "b"], WORKERS) for _ in range(WORKERS)]
        self.dry = [True] * WORKERS
        self.held: list[Row] = []

    def draw(self) -> None:
        """Take the next place, in a transaction that commits later."""
        self.drawn += 1
        self.hidden.append((self.chance.choice(PAIRS), self.drawn))

    def commit(self) -> None:
        """End one of the transactions."""
        if self.hidden:
            pair, seq = self.hidden.pop(self.chance.randrange(len(self.hidden)))
            insort(self.visible[pair], seq)

    def hand_back(self) -> None:
        """Make a claimed job available in its old place."""
        if self.held:
            seq, _, priority, queue = self.held.pop(self.chance.randrange(len(self.held)))
            insort(self.visible[queue, priority], seq)

    def claim(self, number: int, limit: int, took: float) -> None:
        """Take what the statement would take."""
        cursors = self.workers[number]
        starts, sweep = cursors.start(idle=self.dry[number])
        rows: list[Row] = []
        for queue, priority, start in zip(cursors.queues, cursors.priorities, starts, strict=True):
            if places := self.visible.get((queue, priority)):
                first = bisect_right(places, start)
                found = places[first : first + limit - len(rows)]
                del places[first : first + len(found)]
                rows += [(seq, seq, priority, queue) for seq in found]
        self.clock.now += took
        cursors.advance(rows, sweep=sweep, took=took)
        self.dry[number] = len(rows) < limit
        self.held += rows
        if sweep and self.dry[number]:
            assert not self.waiting, "a sweep that was not full has left something"

    @property
    def waiting(self) -> int:
        """How many jobs could be claimed."""
        return sum(map(len, self.visible.values()))

    def step(self) -> None:
        """Let something happen."""
        match self.chance.randrange(6):
            case 0 | 1:
                self.draw()
            case 2:
                self.commit()
            case 3:
                self.hand_back()
            case 4:
                self.clock.now += self.chance.choice([0.001, 0.1, 0.6])
            case _:
                number = self.chance.randrange(WORKERS)
                self.claim(number, self.chance.choice([1, 2, 8]), self.chance.choice([0.0005, 0.02]))


@pytest.mark.parametrize("seed", range(50))
def test_no_job_is_left_unclaimed_whatever_the_order_of_events(clock: Clock, seed: int) -> None:
    world = World(clock, seed)
    for _ in range(400):
        world.step()
    while world.hidden:
        world.commit()
    # Quiet: one worker alone, claiming whenever it may, finds everything.
    worker = world.chance.randrange(WORKERS)
    for _ in range(world.drawn):
        clock.now += world.workers[worker].wait()
        world.claim(worker, 8, 0.0005)
    assert not world.waiting
    assert sorted(seq for seq, *_ in world.held) == list(range(1, world.drawn + 1))


@pytest.mark.parametrize("seed", range(10))
def test_under_full_load_a_job_that_was_jumped_over_waits_for_a_second_at_most(clock: Clock, seed: int) -> None:
    chance, cursors, took = random.Random(seed), Cursors(["a"], 1), 0.004
    late = {chance.randrange(1, 5000) for _ in range(50)}
    visible = [seq for seq in range(1, 5000) if seq not in late]
    shown: dict[int, float] = {}
    longest = 0.0
    while visible:
        jumped = [seq for seq in late if seq < cursors.cursors[5]]
        if jumped and chance.random() < 0.1:
            seq = chance.choice(jumped)
            late.discard(seq)
            shown[seq] = clock.now
            insort(visible, seq)
        starts, sweep = cursors.start(idle=False)
        first = bisect_right(visible, starts[5])
        rows = [row(seq, "a") for seq in visible[first : first + 8]]
        del visible[first : first + 8]
        clock.now += took
        cursors.advance(rows, sweep=sweep, took=took)
        longest = max([longest, *(clock.now - shown.pop(seq) for seq, *_ in rows if seq in shown)])
    assert 0 < longest <= EVERY + 2 * took
