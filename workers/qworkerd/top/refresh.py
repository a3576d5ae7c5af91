"""The refresh: when a frame is read, and what is wrong if none arrives."""

from time import monotonic

from qworker.backoff import Backoff
from qworker.errors import DatabaseUnavailable
from qworkerd.top.background import ReadingThread, Receive
from qworkerd.top.cells import duration
from qworkerd.top.reading import Frame, Query, Reader, describe

#: Time between two refreshes, and the delays while the database is unavailable (seconds).
INTERVAL, RETRY = 1.0, Backoff(1.0, 15.0)
#: How long an answer may take before a line says so (seconds).
SILENCE = 2.5


class Refresh:
    """Has frames read by a thread, one after the other."""

    def __init__(self, reader: Reader, interval: float, receive: Receive) -> None:
        """Receive is called in the thread; it passes on what it gets to `received`, in the thread of the screen."""
        #: Time between two refreshes (seconds).
        self.interval = interval
        #: Whether frames are read on request only.
        self.frozen = False
        #: Why nothing could be read; None if the last attempt has succeeded.
        self.problem: str | None = None
        self._thread = ReadingThread(reader, receive)
        self._requested_at: float | None = None
        self._failures, self._next_at = 0, 0.0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Have the thread end."""
        self._thread.stop()

    @property
    def due(self) -> bool:
        """Whether it is time to request a frame."""
        return self._requested_at is None and not self.frozen and monotonic() >= self._next_at

    @property
    def banner(self) -> str | None:
        """What is wrong at this moment."""
        waited = 0.0 if self._requested_at is None else monotonic() - self._requested_at
        return f"no answer from the database for {duration(round(waited))}" if waited > SILENCE else self.problem

    def request(self, query: Query) -> None:
        """Have a frame read, even if it is not yet time."""
        self._requested_at = self._requested_at or monotonic()
        self._thread.request(query)

    def received(self, found: Frame | BaseException) -> Frame | None:
        """Take note of an answer; return the frame, or None if it could not be read."""
        self._requested_at, self._next_at = None, monotonic() + self.interval
        if isinstance(found, Frame):
            self._failures, self.problem = 0, None
            return found
        self._failures += 1
        self._next_at = monotonic() + RETRY.delay(self._failures)
        self.problem = ("" if isinstance(found, DatabaseUnavailable) else "cannot read: ") + describe(found)
        return None
