"""Answers that all viewers share: each is computed once in its period, by one of those who ask.

Time is cut into slots of a period, the same ones for all keys, and an answer is good until the end of its slot. Thirty
viewers then read as often as one who asks once in each slot. If an answer lived for a period from when it was made, one
viewer who asks as often would find it still good each second time, and thirty would make it twice as often as one.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from secrets import token_hex
from time import monotonic
from typing import Any, TypeVar

T = TypeVar("T")

#: Maximum number of answers that are kept, and of those that may be large: jobs, whose arguments have no limit.
MAX_ANSWERS, MAX_LARGE = 512, 8
#: How long an error is the answer (seconds): a database that does not answer is not asked by each viewer.
ERROR_PERIOD = 1.0
#: An answer that takes this long to make (seconds) may be late: for how many periods, and how many are made at a time.
SLOW, LATE_PERIODS, MAX_RENEWALS = 0.05, 2, 3


class _Answer:
    __slots__ = (
        "begun_at", "duration", "error", "expires_at", "last", "late", "lock", "made", "made_at", "number", "value",
    )  # fmt: skip

    def __init__(self, late: float = 0.0) -> None:
        #: How long it is kept after its slot (seconds).
        self.late = late
        self.lock = threading.Lock()
        #: Set when the answer has been made once; how often it has been made.
        self.made = threading.Event()
        self.number = 0
        #: When the last one who made it has begun and ended, how long this took, and when nobody can use it any more.
        self.begun_at = self.made_at = self.duration = self.expires_at = 0.0
        self.value: Any = None
        self.error: Exception | None = None
        #: The last value that was not an error, for readers that do not take the lock.
        self.last: tuple[Any] | None = None

    def lives(self, now: float, period: float) -> bool:
        """Return whether the slot of the answer goes on; note until when."""
        end = slot_end(self.made_at, min(period, ERROR_PERIOD) if self.error else period)
        self.expires_at = max(self.expires_at, end + self.late)
        return now < end


class Shared:
    """Keeps answers by their keys. Safe for threads; a forked process begins with what its parent had."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._answers: OrderedDict[Hashable, _Answer] = OrderedDict()
        self._large: OrderedDict[Hashable, _Answer] = OrderedDict()
        #: Those of `renewed`, and leave to make one of them again.
        self._renewed: OrderedDict[Hashable, _Answer] = OrderedDict()
        self._renewals = threading.BoundedSemaphore(MAX_RENEWALS)
        #: Those of `latest`: few, and never forgotten.
        self._late: OrderedDict[Hashable, _Answer] = OrderedDict()
        #: A random string of this process, and the number of actions that were taken in it.
        self.secret = token_hex(16)
        self.actions = 0

    def now(self) -> float:
        """Return the time by the clock of the answers."""
        return self._clock()

    def get(
        self,
        key: Hashable,
        period: float | Callable[[T], float],
        make: Callable[[], T],
        *,
        since: float = 0.0,
        large: bool = False,
    ) -> T:
        """Return the answer that was made in this slot of `period` seconds, or make it while others wait for it.

        period: may be a function of the answer. since: do not return an answer whose making has begun before. large:
        few such answers are kept, and none much longer than its period.
        """
        answer = self._answer(self._large if large else self._answers, key, MAX_LARGE if large else MAX_ANSWERS)
        return self._current(answer, period, make, since)

    def renewed(self, key: Hashable, period: float, make: Callable[[], T]) -> T:
        """Return the answer that was made in this slot; if it takes long to make, that of a slot before.

        Then another thread makes it meanwhile, so that those who look at a page again and again never wait. For
        answers that may be late by a period; actions do not change what they say.
        """
        answer = self._answer(self._renewed, key, MAX_ANSWERS, LATE_PERIODS * period)
        last, now = answer.last, self._clock()
        forgotten = now >= answer.expires_at  # nobody has looked for long
        if last is None or answer.error is not None or answer.duration < SLOW or answer.lives(now, period) or forgotten:
            return self._current(answer, period, make)
        if not answer.lock.locked() and self._renewals.acquire(blocking=False):
            threading.Thread(target=self._renew, args=(answer, period, make), daemon=True).start()
        value: T = last[0]
        return value

    def _renew(self, answer: _Answer, period: float, make: Callable[[], Any]) -> None:
        try:
            # The next one who looks raises the error.
            with suppress(Exception):
                self._current(answer, period, make)
        finally:
            self._renewals.release()

    def _current(
        self, answer: _Answer, period: float | Callable[[T], float], make: Callable[[], T], since: float = 0.0
    ) -> T:
        number = answer.number
        with answer.lock:
            # Who has waited takes what was made meanwhile, even if its slot has ended: they would make it in turn.
            usable = answer.number > number or (answer.number > 0 and answer.lives(self._clock(), _of(period, answer)))
            if not usable or answer.begun_at < since:
                answer.begun_at = self._clock()
                try:
                    answer.value, answer.error = make(), None
                    answer.last = (answer.value,)
                except Exception as error:  # noqa: BLE001 # it is the answer for all who ask
                    # Every reader raises it, so the frames of the first one must not pile up on it.
                    answer.value, answer.error = None, error.with_traceback(None)
                answer.made_at, answer.expires_at = self._clock(), 0.0
                answer.duration = answer.made_at - answer.begun_at
                answer.lives(answer.made_at, _of(period, answer))
                answer.number += 1
            if answer.error is not None:
                raise answer.error.with_traceback(None)
            value: T = answer.value
            return value

    def latest(self, key: Hashable, period: float, make: Callable[[], T], *, wait: float) -> T | None:
        """Return the last answer, however old; None if there is none yet, or only an error.

        If its slot of `period` seconds has ended, another thread makes a new one. Who asks first waits for it, up to
        `wait` seconds, and nobody else does. For answers that may be late, and would take longer than a page may.
        """
        answer = self._answer(self._late, key, MAX_ANSWERS)
        if answer.expires_at <= self._clock() and answer.lock.acquire(blocking=False):
            first, answer.number = answer.number == 0, answer.number + 1
            # The thread that makes the answer releases the lock. Until then no other one starts.
            threading.Thread(target=self._make_and_release, args=(answer, period, make), daemon=True).start()
            if first:
                answer.made.wait(wait)
        value: T | None = answer.value
        return value

    def _make_and_release(self, answer: _Answer, period: float, make: Callable[[], Any]) -> None:
        try:
            # If it fails, pages show the last answer; what they read themselves tells that something is wrong.
            with suppress(Exception):
                answer.value = make()
        finally:
            answer.expires_at = slot_end(self._clock(), period)
            answer.made.set()
            answer.lock.release()

    def invalidate(self) -> None:
        """Let every answer be made again, because an action has changed what they say; but for those that may be late.

        Otherwise each action would make those again that take long.
        """
        with self._lock:
            self.actions += 1
            self._answers.clear()
            self._large.clear()

    def sizes(self) -> dict[str, int]:
        """Return how many answers are kept, by their kind."""
        kinds = {"answers": self._answers, "large": self._large, "renewed": self._renewed, "late": self._late}
        return {kind: len(kept) for kind, kept in kinds.items()}

    def _answer(self, answers: OrderedDict[Hashable, _Answer], key: Hashable, most: int, late: float = 0.0) -> _Answer:
        with self._lock:
            self._drop_expired(self._large)
            answer = answers.get(key)
            if answer is None:
                if answers is not self._late:
                    self._drop_expired(answers)
                answer = answers[key] = _Answer(late)
                while len(answers) > most:
                    answers.popitem(last=False)
            else:
                answers.move_to_end(key)
            return answer

    def _drop_expired(self, answers: OrderedDict[Hashable, _Answer]) -> None:
        """Free the memory of answers that nobody gets any more; one that is being made stays for those who wait."""
        now = self._clock()
        for key in [key for key, one in answers.items() if 0 < one.expires_at <= now and not one.lock.locked()]:
            del answers[key]


def slot_end(now: float, period: float) -> float:
    """Return the end of the slot in which `now` is."""
    return (now // period + 1) * period


def _of(period: float | Callable[[Any], float], answer: _Answer) -> float:
    if not callable(period):
        return period
    return ERROR_PERIOD if answer.error else period(answer.value)
