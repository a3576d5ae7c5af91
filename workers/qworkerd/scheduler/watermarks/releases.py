"""Tracks released jobs, of this node and of others, which keep their seq and may be below the watermarks."""

from collections import deque
from typing import NamedTuple

from qworker.registry import PollResult
from qworkerd.shared.watermarks import Watermarks

#: Time for which a release is announced to the other nodes, and time between two polls after which a node may have
#: missed an announcement (seconds).
ANNOUNCE_RELEASE_FOR, RELEASE_MISSED_AFTER = 5.0, 4.0


class Announced(NamedTuple):
    """The lowest seq of some releases, and when a heartbeat announced it (monotonic)."""

    at: float
    seq: int


class Releases:
    """Collects the releases of this node for its heartbeats, and detects that those of another may have been missed."""

    __slots__ = (
        "_announced",
        "_nodes",
        "_poll_started",
        "_previous_poll_started",
        "_unannounced",
        "_watermarks",
        "counts",
    )

    def __init__(self, watermarks: Watermarks) -> None:
        self._watermarks = watermarks
        #: The lowest seq released that no heartbeat has announced yet, and those announced, with the time.
        self._unannounced: int | None = None
        self._announced: deque[Announced] = deque()

    def reset(self, now: float) -> None:
        """Start again: the server may be another one. What this node has released is announced nevertheless."""
        self._nodes: frozenset[int] = frozenset()
        self._poll_started = self._previous_poll_started = now
        self._collect()

    def begin(self, now: float) -> None:
        """Read the releases of this node that the next poll can see; call this before `Watermarks.scan_start`."""
        self._poll_started = now
        self._collect()
        while self._announced and self._announced[0].at < now - ANNOUNCE_RELEASE_FOR:
            self._announced.popleft()

    def _collect(self) -> None:
        """Record the jobs released here since the last poll, before the watermarks account for them."""
        #: The release count of each slot that the poll accounts for.
        self.counts = self._watermarks.release_counts()
        released = self._watermarks.released_seq()
        if released is not None:
            self._unannounced = released if self._unannounced is None else min(released, self._unannounced)

    @property
    def lowest(self) -> int | None:
        """The lowest seq that this node has released recently, for its heartbeat."""
        announced = [release.seq for release in self._announced]
        return min(announced if self._unannounced is None else [*announced, self._unannounced], default=None)

    def confirm(self, now: float) -> None:
        """Record that a heartbeat has announced `lowest`."""
        if self._unannounced is not None:
            self._announced.append(Announced(now, self._unannounced))
            self._unannounced = None

    def may_have_missed(self, result: PollResult, now: float) -> bool:
        """Return whether another node may have released jobs without a poll of this node reading its announcement.

        An announcement may have ended if the polls were too far apart, and a node that is gone may have made none.
        """
        before, self._previous_poll_started = self._previous_poll_started, self._poll_started
        nodes, self._nodes = self._nodes, frozenset(result.heartbeats)
        return now - before > RELEASE_MISSED_AFTER or not nodes <= self._nodes
