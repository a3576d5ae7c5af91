"""The interrupt gate: allows signals to interrupt the handler only. It also arms the timeout of a job."""

from collections.abc import Callable
from math import inf
from signal import ITIMER_REAL, SIGALRM, getitimer, setitimer
from time import monotonic
from types import FrameType
from typing import Any

from qworker.coroutines import STUCK_AFTER, cancel_running
from qworker.errors import Interrupt, TimeoutInterrupt

#: Tolerance between the timer and the clock, which are read one after the other (seconds).
_TIMER_TOLERANCE = 0.1


class InterruptGate:
    """Calls handlers. While a handler runs, the gate is open and a signal may raise.

    The timer is set lazily: it stays set for the earliest deadline known, and `fire` compares the clock. Few jobs run
    until their deadline, so few jobs need a system call.
    """

    __slots__ = ("_armed", "_deadline", "_open", "_repeat", "_stuck_at", "fired", "interrupted")

    def __init__(self, repeat: float = 5.0) -> None:
        self._open = False
        self._deadline = inf
        #: When the pending timer expires; infinite if none is known to be pending.
        self._armed = inf
        #: Interval at which an interrupt is repeated if it was swallowed, in __del__ or by `except BaseException`
        #: (seconds).
        self._repeat = repeat
        #: When an interrupt that has cancelled a coroutine is raised, unless the handler has ended.
        self._stuck_at = inf
        #: The deadline of the last handler that has timed out. If it is that of a job, the job has timed out.
        self.fired = 0.0
        #: The interrupt that a signal has raised in the current or last handler.
        self.interrupted: type[Interrupt] | None = None

    def call(self, handler: Callable[..., Any], args: Any, kwargs: Any, deadline: float) -> Any:
        """Call the handler; raise TimeoutInterrupt in it once monotonic() passes the deadline.

        The deadline is set, the gate opened, and the timer compared, in this order. If an alarm arrives before the gate
        is open, it is recorded as expired. If it arrives afterwards, the timer is set again for the current deadline.
        """
        try:
            self._deadline = deadline
            self.interrupted = None
            self._open = True
            if deadline < self._armed:
                self._armed = deadline
                setitimer(ITIMER_REAL, max(deadline - monotonic(), 1e-6))
            return handler(*args, **kwargs)
        finally:
            # CPython checks for signals when a function is entered, after calls and on backward jumps. None of these is
            # between the handler's return and this store, so an alarm finds the gate either open, inside the try, or
            # closed. It must remain a plain store: a call here could itself be interrupted.
            self._open = False

    def fire(self, _signum: int = SIGALRM, _frame: FrameType | None = None) -> None:
        """Handle SIGALRM from any sender: raise if the deadline of the running handler has passed."""
        if self._open and self.interrupted is not None and monotonic() >= self._stuck_at:
            # A coroutine was cancelled and has not ended.
            self._armed = self._stuck_at = inf
            raise self.interrupted
        if not self._open or self._deadline == inf:
            self._armed = inf
            return
        remaining = self._deadline - monotonic()
        if remaining > 0:
            self._armed = self._deadline
            setitimer(ITIMER_REAL, remaining)
            return
        self.fired = self._deadline
        if cancel_running(TimeoutInterrupt):
            self._arm(STUCK_AFTER)
            return
        self._arm(self._repeat)
        raise TimeoutInterrupt

    def interrupt(self, error: type[Interrupt]) -> None:
        """Raise an interrupt in the handler if one is running, once: a repeated signal must not disturb its cleanup."""
        if self._open and self.interrupted is None:
            self.interrupted, self._stuck_at = error, inf
            if not cancel_running(error):
                raise error
            self._stuck_at = monotonic() + STUCK_AFTER
            if self._stuck_at < self._armed:
                self._arm(STUCK_AFTER)

    def _arm(self, seconds: float) -> None:
        """Set the timer, and record it as pending, so that the next job compares its deadline with it."""
        self._armed = monotonic() + seconds
        setitimer(ITIMER_REAL, seconds)

    def reclaim_timer(self) -> bool:
        """Reset a timer that a handler has used; return whether it differs from what the gate has set.

        An alarm during the check changes the recorded state and is not reported.
        """
        armed = self._armed
        remaining, interval = getitimer(ITIMER_REAL)
        if self._armed != armed:
            return False
        due = 0.0 if armed == inf else max(armed - monotonic(), 0.0)
        if abs(remaining - due) < _TIMER_TOLERANCE and not interval:
            if not remaining:
                self._armed = inf  # the alarm may have been ignored: no timer is pending
            return False
        setitimer(ITIMER_REAL, 0)
        self._armed = inf
        return True

    def disarm(self) -> None:
        """Stop the timer, so that it does not wake an idle process."""
        setitimer(ITIMER_REAL, 0)
        self._armed = inf
