"""The survey: how far up the queue nothing can be left, found out with each look."""

from collections import deque
from operator import lt
from time import monotonic

from qworker.nodes import PREPARED, PollResult
from qworkerd.scheduler.scrub import EXPENSIVE_SCRUB, Scrub
from qworkerd.shared.watermarks import Watermarks

#: A transaction that has been writing for longer (seconds) keeps the floors down no more; they fall when it ends.
LINGERING_AFTER = 3.0
#: What was handed back here is told to the other nodes for so long (seconds); one whose looks were further apart may
#: have missed it, and begins anew.
ANNOUNCE_RELEASE_FOR, RELEASE_MISSED_AFTER = 5.0, 4.0


class WatermarkTracker:
    """Raises the floors to what each look has shown, as far as no place can still be filled.

    A place is drawn before its job can be seen, by a transaction that holds a lock on the table from before it draws
    until it ends. So once all who held that lock at a moment are gone, every place drawn until then is visible or will
    never be: the places are settled. A floor rises to the first job that is available below the settled places, to the
    last of them if there is none.

    A transaction that lingers would keep all that is finished meanwhile above the floors, for every sweep to walk over.
    What it has written cannot be seen before it ends, so the others settle without it, and when it is gone the floors
    fall back to the places that were settled without a doubt.

    Jobs handed back by this node lower the floors (`Floors.lower`), those handed back by others are told with their
    beats, and a node that is no more may have told nobody. What nobody can tell the scrub finds.
    """

    def __init__(self, floors: Watermarks) -> None:
        self._floors = floors
        self._scrub = Scrub()
        #: The lowest place handed back that no beat has told yet, and those that were, with the time.
        self._untold: int | None = None
        self._told: deque[tuple[float, int]] = deque()
        self.reset()

    def reset(self) -> None:
        """Forget what was learnt: the server may be another one."""
        #: Up to here no place can be filled any more, as far as each look before the next has shown.
        self._settled = 0
        #: Every claim made until then was committed or never will be (the database's clock, seconds since 1970).
        self.settled_at = 0.0
        #: Places drawn until some look, the time before it, those who were writing then and still are, and since when
        #: they are waited for (monotonic).
        self._pending: tuple[int, float, set[str], float] | None = None
        #: Those who have been writing for long, with the places and the time that were settled when they began.
        self._lingering: dict[str, tuple[int, float]] = {}
        #: Whether the floors fell with the last look.
        self._fell = False
        self._at = 0.0
        #: Whether no look has been had yet: the first begins at the very front.
        self._anew = True
        self._scrub.reset()
        #: Whether the next look has to say who is writing.
        self.needs_writers = True
        self._nodes: frozenset[int] = frozenset()
        self._began = self._seen = monotonic()
        self._returns = self._floors.release_counts()
        self._hear()
        self._floors.set([0] * len(self._floors.queues), self._returns)

    @property
    def released_seq(self) -> int | None:
        """The lowest place that was handed back lately, for the other nodes."""
        told = [place for _, place in self._told]
        return min(told if self._untold is None else [*told, self._untold], default=None)

    @property
    def has_lingering_writer(self) -> bool:
        """Whether somebody has been writing for long: what that was waits for a look to find the writer gone."""
        return bool(self._lingering)

    def begin(self, *, sweep: bool = False) -> tuple[list[int], tuple[int, int]]:
        """Return from where the next look has to begin, for each pair of queue and priority; and the scrub's slice.

        sweep: the look also asks for what is rare, and may take long for that.
        """
        self._began = now = monotonic()
        self._returns = self._floors.release_counts()
        self._hear()
        while self._told and self._told[0][0] < now - ANNOUNCE_RELEASE_FOR:
            self._told.popleft()
        front = self._floors.scan_start()
        return front, self._scrub.begin(front, free=not sweep)

    def _hear(self) -> None:
        """Take in what was handed back here since the last look, before the floors reckon with it."""
        returned = self._floors.released_seq()
        if returned is not None:
            self._untold = returned if self._untold is None else min(returned, self._untold)

    def advance(self, sight: PollResult) -> bool:
        """Raise the floors to what a look has shown; tell whether another one is due at once."""
        now = monotonic()
        if sight.renewed and self._untold is not None:
            self._told.append((now, self._untold))
            self._untold = None
        fell, self._fell = self._fell, self._fall_back(sight)
        floors = [self._settled if front is None else min(front - 1, self._settled) for front in sight.first_available]
        fallen_to = self.settled_at
        dear, anew, self._anew = sight.took > EXPENSIVE_SCRUB, self._anew, False
        again = (self._settle(sight) and dear and anew) or self._fell
        if self._fell:
            self.settled_at = fallen_to  # for the next look: what lingered may have been a claim
        if anew and not dear:
            self._scrub.trust(min(sight.last_seq if front is None else front - 1 for front in sight.first_available))
        self._scrub.advance(sight.took)
        before, self._seen = self._seen, self._began
        if now - before > RELEASE_MISSED_AFTER or self._nodes - sight.heartbeats.keys():
            floors, again = [0] * len(floors), True
        elif sight.released_seq is not None:
            floors = [min(floor, sight.released_seq - 1) for floor in floors]
            again = again or any(map(lt, floors, self._floors.scan_start()))
        self._nodes = frozenset(sight.heartbeats)
        self._floors.set(floors, self._returns)
        if fell:
            self._floors.swept = 0.0  # what has come to light waits for a sweep
        return again

    def poll_failed(self) -> None:
        """Take in that a look could not be had: who lingered may be gone, and nobody knows."""
        self._scrub.poll_failed()
        if self._lingering:
            self._floors.cap(min(places for places, _ in self._lingering.values()))

    def _fall_back(self, sight: PollResult) -> bool:
        """Settle for what was settled before those began who lingered and are gone; tell whether there are any."""
        gone = self._lingering.keys() - set(sight.writers)
        for writer in gone:
            places, at = self._lingering.pop(writer)
            self._settled, self.settled_at = min(places, self._settled), min(at, self.settled_at)
        return bool(gone)

    def _settle(self, sight: PollResult) -> bool:
        """Find out which places are settled; tell whether there are more than before.

        It is for the next look to use: this one may have begun before they were.
        """
        before, writers = self._settled, set(sight.writers) - self._lingering.keys()
        if self._pending is not None and PREPARED not in writers:  # who prepares to commit goes on under another name
            places, at, there, since = self._pending
            there &= writers
            if self._began - since > LINGERING_AFTER:
                self._lingering |= dict.fromkeys(there, (self._settled, self.settled_at))
                writers -= there
                there.clear()
            if not there:
                self._settled, self.settled_at, self._pending = places, at, None
        if self._pending is None and self.needs_writers:
            if writers:
                self._pending = sight.last_seq, self._at, writers, self._began
            else:
                self._settled, self.settled_at = sight.last_seq, self._at
        self._at = sight.at
        self.needs_writers = (
            bool(self._pending or self._lingering) or sight.last_seq > self._settled or sight.has_running
        )
        return self._settled > before
