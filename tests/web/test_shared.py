"""Answers that viewers share are made once, by one of them."""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from weakref import WeakSet

import pytest

from qworkerd.web.shared import MAX_ANSWERS, MAX_LARGE, MAX_RENEWALS, Shared
from tests.waiting import until


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_an_answer_lives_for_its_period() -> None:
    clock = Clock()
    shared, made = Shared(clock), iter(range(10))
    assert [shared.get("a", 5, lambda: next(made)) for _ in range(3)] == [0, 0, 0]
    clock.now = 5
    assert shared.get("a", 5, lambda: next(made)) == 1
    assert shared.get("b", 5, lambda: next(made)) == 2
    shared.invalidate()
    assert shared.get("a", 5, lambda: next(made)) == 3


def test_an_answer_is_good_until_the_end_of_its_slot() -> None:
    clock = Clock()
    clock.now = 9.5
    shared, made = Shared(clock), iter(range(10))

    def ask(period: float = 5) -> int:
        return shared.get("a", period, lambda: next(made))

    assert ask() == 0
    # Who asks once in each slot reads as often as many do who ask at any time.
    clock.now = 10.0
    assert [ask(), ask()] == [1, 1]
    clock.now = 14.9
    # Who needs a younger one makes it, for all.
    assert [ask(), ask(2), ask(2), ask()] == [1, 2, 2, 2]


def test_the_period_may_depend_on_the_answer() -> None:
    clock, found = Clock(), []
    shared, made = Shared(clock), iter([1, 10, 100])
    for now in (0, 1, 9, 10):
        clock.now = now
        found.append(shared.get("a", float, lambda: next(made)))
    assert found == [1, 10, 10, 100]


def test_no_answer_is_older_than_what_the_user_has_done() -> None:
    clock = Clock()
    shared, made = Shared(clock), iter(range(10))
    clock.now = 1
    assert shared.get("a", 60, lambda: next(made)) == 0
    clock.now = 2
    assert [shared.get("a", 60, lambda: next(made), since=since) for since in (1, 1.5, 1.5, 0)] == [0, 1, 1, 1]


def test_those_who_have_waited_do_not_make_the_answer_in_turn() -> None:
    clock, calls, asking = Clock(), list[int](), threading.Semaphore(0)
    shared = Shared(clock)
    shared.get("a", 5, lambda: 0)
    answer = shared._answers["a"]

    class Watched:
        """Tells who is about to wait, or to make it."""

        lock = answer.lock

        def __enter__(self) -> None:
            asking.release()
            self.lock.acquire()

        def __exit__(self, *_: object) -> None:
            self.lock.release()

        def locked(self) -> bool:
            return self.lock.locked()

    def slow() -> int:
        calls.append(1)
        for _ in range(4):
            assert asking.acquire(timeout=60)
        # Its slot has ended before they have got it.
        clock.now += 0.5
        return len(calls)

    answer.lock = Watched()  # type: ignore[assignment]
    clock.now = 9.0

    def later() -> int:
        # The clock moves on as soon as it is read again.
        found = shared.get("a", 5, slow)
        clock.now = 10.0
        return found

    with ThreadPoolExecutor(4) as pool:
        assert [one.result(20) for one in [pool.submit(later) for _ in range(4)]] == [1] * 4


def test_those_who_ask_at_once_wait_for_one() -> None:
    shared, begun, release = Shared(), threading.Event(), threading.Event()
    calls: list[int] = []

    def slow() -> int:
        calls.append(1)
        begun.set()
        assert release.wait(60)
        return 7

    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(shared.get, "a", 60, slow)
        assert begun.wait(60)
        others = [pool.submit(shared.get, "a", 60, slow) for _ in range(7)]
        release.set()
        assert [found.result() for found in (first, *others)] == [7] * 8
    assert calls == [1]


def test_an_error_is_the_answer_for_a_second() -> None:
    clock, calls = Clock(), []

    def fail() -> int:
        calls.append(1)
        raise ConnectionError("gone")

    shared = Shared(clock)
    for _ in range(3):
        with pytest.raises(ConnectionError):
            shared.get("a", 60, fail)
    assert len(calls) == 1
    clock.now = 1.5
    assert shared.get("a", 60, lambda: 1) == 1


def test_the_number_of_answers_is_limited() -> None:
    shared = Shared()
    for number in range(2 * MAX_ANSWERS):
        shared.get(number, 60, lambda: 0)
    assert len(shared._answers) == MAX_ANSWERS


class Large:
    """An answer that a weak reference can watch."""


def test_few_large_answers_are_kept_and_none_beyond_its_period() -> None:
    clock = Clock()
    clock.now = 1.0
    shared = Shared(clock)
    made = WeakSet[Large]()

    def make() -> Large:
        found = Large()
        made.add(found)
        return found

    for number in range(3 * MAX_LARGE):
        shared.get(number, 1, make, large=True)
    gc.collect()
    assert len(made) == MAX_LARGE
    clock.now = 2.0
    # Whatever is asked for next frees them.
    shared.get("other", 1, lambda: 0)
    gc.collect()
    assert len(made) == 0


def test_answers_whose_period_has_ended_are_forgotten() -> None:
    clock = Clock()
    clock.now = 1.0
    shared = Shared(clock)
    for number in range(100):
        shared.get(number, 1, lambda: 0)
    clock.now = 2.0
    shared.get("other", 1, lambda: 0)
    assert list(shared._answers) == ["other"]


def test_answers_that_may_be_late_are_forgotten_as_well() -> None:
    clock = Clock()
    shared = Shared(clock)
    for number in range(3 * MAX_ANSWERS):
        shared.renewed(number, 15, lambda: 0)
    assert shared.sizes()["renewed"] == MAX_ANSWERS
    # Those who look after a period or two may still see them.
    clock.now = 44
    shared.renewed("other", 15, lambda: 0)
    assert shared.sizes()["renewed"] == MAX_ANSWERS
    clock.now = 45
    shared.renewed("another", 15, lambda: 0)
    assert shared.sizes()["renewed"] == 2


def test_an_action_does_not_take_away_a_late_answer() -> None:
    shared, release = Shared(), threading.Event()
    assert shared.latest("a", 60, lambda: "found", wait=10) == "found"
    before = threading.active_count()

    def slow() -> str:
        assert release.wait(60)
        return "again"

    for _ in range(20):
        shared.invalidate()
        assert shared.latest("a", 60, slow, wait=0) == "found"
    assert threading.active_count() == before
    release.set()


def test_only_who_asks_first_waits_for_a_late_answer() -> None:
    shared, release, asked, waits = Shared(), threading.Event(), threading.Event(), list[float]()

    def slow() -> str:
        asked.set()
        assert release.wait(10)
        return "found"

    def ask(key: str) -> str | None:
        return shared.latest(key, 60, slow, wait=10)

    with ThreadPoolExecutor(2) as threads:
        first = [threads.submit(ask, key) for key in ("a", "b")]
        until(lambda: shared.sizes()["late"] == 2 and asked.is_set(), 10, "nobody has asked")
        until(lambda: all(one.number == 1 for one in shared._late.values()), 10, "the answers are not being made")
        for key in ("a", "b"):
            for _ in range(100):
                begun = monotonic()
                assert ask(key) is None
                waits.append(monotonic() - begun)
        assert not any(one.done() for one in first)
        release.set()
        assert [one.result(10) for one in first] == ["found", "found"]
    assert sum(waits) < 5
    assert ask("a") == "found"


def test_nobody_waits_again_for_a_late_answer_that_has_failed_or_is_overdue() -> None:
    clock, release = Clock(), threading.Event()
    shared = Shared(clock)

    def fail() -> str:
        raise OSError("away")

    def slow() -> str:
        assert release.wait(10)
        return "found"

    assert shared.latest("a", 5, fail, wait=10) is None
    clock.now = 6
    begun = monotonic()
    assert [shared.latest("a", 5, slow, wait=10) for _ in range(3)] == [None] * 3
    assert monotonic() - begun < 5
    release.set()
    until(lambda: shared.latest("a", 5, slow, wait=10) == "found", 10, "the answer was not made")


def test_a_late_answer_is_the_last_one() -> None:
    clock, release = Clock(), threading.Event()
    shared = Shared(clock)
    assert shared.latest("a", 5, lambda: 1, wait=10) == 1
    clock.now = 6

    def slow() -> int:
        assert release.wait(60)
        return 2

    assert [shared.latest("a", 5, slow, wait=10) for _ in range(3)] == [1, 1, 1]
    release.set()
    until(lambda: shared.latest("a", 5, slow, wait=0) == 2, 10, "the new answer was not made")


class Slow:
    """An answer that takes a second by the clock, and is made by whoever is let."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.made, self.gate = clock, 0, threading.Event()
        self.gate.set()
        self.fails = False

    def __call__(self) -> int:
        assert self.gate.wait(60)
        self.clock.now += 1.0
        if self.fails:
            raise RuntimeError("away")
        self.made += 1
        return self.made


def test_an_answer_that_takes_long_is_made_while_the_last_one_is_returned(clock: Clock) -> None:
    shared, make = Shared(clock), Slow(clock)
    assert shared.renewed("key", 10.0, make) == 1, "the first one is waited for"
    make.gate.clear()
    clock.now += 10.0
    assert [shared.renewed("key", 10.0, make) for _ in range(5)] == [1] * 5
    make.gate.set()
    until(lambda: shared.renewed("key", 10.0, make) == 2)
    assert make.made == 2


def test_an_action_does_not_make_it_again(clock: Clock) -> None:
    shared, make = Shared(clock), Slow(clock)
    shared.renewed("key", 10.0, make)
    shared.invalidate()
    assert shared.renewed("key", 10.0, make) == 1


def test_an_answer_that_nobody_has_asked_for_in_long_is_not_returned(clock: Clock) -> None:
    shared, make = Shared(clock), Slow(clock)
    shared.renewed("key", 10.0, make)
    clock.now += 40.0
    assert shared.renewed("key", 10.0, make) == 2


def test_an_answer_that_is_made_at_once_is_never_late(clock: Clock) -> None:
    shared, made = Shared(clock), iter(range(10))
    assert shared.renewed("key", 10.0, lambda: next(made)) == 0
    clock.now += 10.0
    assert shared.renewed("key", 10.0, lambda: next(made)) == 1


def test_the_error_of_an_answer_that_takes_long_is_raised(clock: Clock) -> None:
    shared, make = Shared(clock), Slow(clock)
    shared.renewed("key", 10.0, make)
    make.fails = True
    clock.now += 10.0
    assert shared.renewed("key", 10.0, make) == 1

    def raises() -> bool:
        try:
            return shared.renewed("key", 10.0, make) != 1
        except RuntimeError:
            return True

    until(raises)


def test_few_answers_are_renewed_at_the_same_time(clock: Clock) -> None:
    shared, make = Shared(clock), Slow(clock)
    keys = range(3 * MAX_RENEWALS)
    for key in keys:
        shared.renewed(key, 1_000.0, make)
    before = threading.active_count()
    make.gate.clear()
    clock.now += 1_000.0
    try:
        for key in keys:
            shared.renewed(key, 1_000.0, make)
        assert threading.active_count() - before == MAX_RENEWALS
    finally:
        make.gate.set()
    until(lambda: threading.active_count() == before)
