"""The survey: how far up the queue nothing can be left, found out with each look."""

from collections import deque
from operator import lt
from time import monotonic

from qworker.nodes import PREPARED, Sight
from qworkerd.node import Node

#: A look begins at the very front at least so often (seconds), for jobs that came back unannounced: edited, restored.
COMPLETE = 30.0
#: Looks from the front may take a fiftieth of the time.
SHARE = 50
#: What was handed back here is told to the other nodes for so long (seconds); one whose looks were further apart may
#: have missed it, and begins anew.
TOLD, MISSED = 5.0, 4.0


class Survey:
    """Raises the floors to what each look has shown, as far as no place can still be filled.

    A place is drawn before its job can be seen, by a transaction that holds a lock on the table from before it draws
    until it ends. So once all who held that lock at a moment are gone, every place drawn until then is visible or will
    never be: the places are settled. A floor rises to the first job that is available below the settled places, to the
    last of them if there is none. Jobs handed back by this node lower it (`Floors.lower`), those handed back by others
    are told with their beats, and a node that is no more may have told nobody.
    """

    def __init__(self, node: Node) -> None:
        self._floors = node.floors
        #: The lowest place handed back that no beat has told yet, and those that were, with the time.
        self._untold: int | None = None
        self._told: deque[tuple[float, int]] = deque()
        self.reset()

    def reset(self) -> None:
        """Forget what was learnt: the server may be another one."""
        self._hear()
        self._settled = 0
        self._drawn = 0
        #: Places drawn until some look, and who was writing at the next one.
        self._pending: tuple[int, set[str]] | None = None
        self._nodes: frozenset[int] = frozenset()
        self._began = self._seen = monotonic()
        self._complete_due = 0.0
        self._floors.set([0] * len(self._floors.queues), self._began)

    @property
    def returned(self) -> int | None:
        """The lowest place that was handed back lately, for the other nodes."""
        told = [place for _, place in self._told]
        return min(told if self._untold is None else [*told, self._untold], default=None)

    @property
    def doubts(self) -> bool:
        """Whether the next look has to say who is writing."""
        return self._pending is not None or self._drawn > self._settled

    def begin(self) -> list[int]:
        """Return from where the next look has to begin, for each pair of queue and priority."""
        self._began = now = monotonic()
        self._hear()
        while self._told and self._told[0][0] < now - TOLD:
            self._told.popleft()
        front = self._floors.front()
        return [0] * len(front) if now >= self._complete_due else front

    def _hear(self) -> None:
        """Take in what was handed back here since the last look, before the floors reckon with it."""
        returned = self._floors.returned()
        if returned is not None:
            self._untold = returned if self._untold is None else min(returned, self._untold)

    def take(self, sight: Sight) -> bool:
        """Raise the floors to what a look has shown; tell whether another one is due at once, from further down."""
        now = monotonic()
        if sight.renewed and self._untold is not None:
            self._told.append((now, self._untold))
            self._untold = None
        if self._began >= self._complete_due:
            self._complete_due = now + max(COMPLETE, SHARE * (now - self._began))
        floors = [self._settled if front is None else min(front - 1, self._settled) for front in sight.fronts]
        before, self._seen = self._seen, self._began
        missed = now - before > MISSED or bool(self._nodes - sight.beats.keys())
        if missed:
            floors, self._complete_due = [0] * len(floors), now
        elif sight.returned is not None:
            floors = [min(floor, sight.returned - 1) for floor in floors]
        lowered = missed or any(map(lt, floors, self._floors.front()))
        self._nodes = frozenset(sight.beats)
        self._floors.set(floors, self._began)
        self._settle(sight)
        return lowered

    def _settle(self, sight: Sight) -> None:
        """Find out which places are settled, for the next look: this one may have begun before they were."""
        writers = set(sight.writers)
        if self._pending is not None:
            places, there = self._pending
            there &= writers
            if not there and PREPARED not in writers:  # who prepares to commit goes on under another name
                self._settled, self._pending = places, None
        if self._pending is None and self._drawn > self._settled:
            self._pending = self._drawn, writers
            if not writers:
                self._settled, self._pending = self._drawn, None
        self._drawn = sight.drawn
