"""The interrupt gate: lets signals interrupt the handler and nothing else. A job's timeout is armed here."""

from collections.abc import Callable
from math import inf
from signal import ITIMER_REAL, SIGALRM, getitimer, setitimer
from time import monotonic
from types import FrameType
from typing import Any

from qworker.errors import Interrupt, TimeoutInterrupt

#: What is due and what the kernel says may differ by this much: both clocks are read one after the other (seconds).
_TIMER_TOLERANCE = 0.1


class InterruptGate:
    """Calls handlers; while one runs the gate is open, and a signal may raise.

    The timer is armed lazily: it stays set for the earliest deadline known, and `fire` looks at the clock. Almost no
    job lives to see its deadline, so almost no job costs a system call.
    """

    __slots__ = ("_armed", "_deadline", "_open", "_repeat", "fired")

    def __init__(self, repeat: float = 5.0) -> None:
        self._open = False
        self._deadline = inf
        #: When the pending timer goes off; infinite: none is known to be pending.
        self._armed = inf
        #: After how many seconds an interrupt that was swallowed (in __del__, by `except BaseException`) comes again.
        self._repeat = repeat
        #: The deadline of the last handler that was told so: it tells whether a job was interrupted.
        self.fired = 0.0

    def call(self, handler: Callable[..., Any], args: Any, kwargs: Any, deadline: float) -> Any:
        """Call the handler; raise JobTimeout in it once monotonic() passes the deadline.

        The order is deadline, open, compare: an alarm comes either before the gate is open, and is noted as spent, or
        after, and is set anew for the right deadline.
        """
        try:
            self._deadline = deadline
            self._open = True
            if deadline < self._armed:
                self._armed = deadline
                setitimer(ITIMER_REAL, max(deadline - monotonic(), 1e-6))
            return handler(*args, **kwargs)
        finally:
            # CPython looks for signals when a function is entered, after calls and on backward jumps. Between the
            # handler's return and this store there is none of them, so an alarm finds the gate either open, inside the
            # try, or closed. It must stay a plain store: a call here could itself be interrupted.
            self._open = False

    def fire(self, _signum: int = SIGALRM, _frame: FrameType | None = None) -> None:
        """Answer SIGALRM, whoever sent it: raise if the running handler's deadline is over."""
        if not self._open or self._deadline == inf:
            self._armed = inf
            return
        left = self._deadline - monotonic()
        if left > 0:
            self._armed = self._deadline
            setitimer(ITIMER_REAL, left)
            return
        # The repeat is noted as the pending timer, so that a later job compares its deadline with the truth.
        self._armed = monotonic() + self._repeat
        setitimer(ITIMER_REAL, self._repeat)
        self.fired = self._deadline
        raise TimeoutInterrupt

    @property
    def is_open(self) -> bool:
        """Whether a handler runs."""
        return self._open

    def interrupt(self, error: type[Interrupt]) -> None:
        """Raise in the handler if one runs."""
        if self._open:
            raise error

    def reclaim_timer(self) -> bool:
        """Take the timer back from a handler that used it; return whether it is not as the gate has set it.

        An alarm that goes off between the two looks changes what is known, and is no reason to complain.
        """
        armed = self._armed
        left, interval = getitimer(ITIMER_REAL)
        if self._armed != armed:
            return False
        due = 0.0 if armed == inf else max(armed - monotonic(), 0.0)
        if abs(left - due) < _TIMER_TOLERANCE and not interval:
            if not left:
                self._armed = inf  # its alarm may have been ignored: nothing is pending
            return False
        setitimer(ITIMER_REAL, 0)
        self._armed = inf
        return True

    def disarm(self) -> None:
        """Stop the timer: an idle process need not wake for it."""
        setitimer(ITIMER_REAL, 0)
        self._armed = inf
