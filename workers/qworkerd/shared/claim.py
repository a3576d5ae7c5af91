"""One claim of a worker in shared memory: its token, the jobs it got, and what became of them."""

import enum
import os
from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass

#: How many jobs one claim may take.
BATCH = 256
#: How many claims a worker may have open: what runs, what is being acknowledged, and the rest for claims kept open by
#: rows that somebody else has locked.
CLAIMS = 32
#: Stands for a task this node does not know.
UNKNOWN = 0xFFFF

#: Bytes that the outcomes of one claim may take in memory: room for the largest result, or for 256 of 360 bytes.
OUTCOMES = 96 * 1024

_WORD = 8
#: Where the first outcome stands, for 0 means none; and the size that precedes each.
_FIRST, _SIZE = 8, 4
#: Bytes of one claim: token and count; ids, attempts, tasks, statuses (padded), places of outcomes; the outcomes.
CLAIM_SIZE = 2 * _WORD + BATCH * (8 + 4 + 2 + 2 + 4) + OUTCOMES


class Status(enum.IntEnum):
    """How far a claimed job is; the store of RUNNING comes after everything that belongs to the run."""

    UNSTARTED = 0
    RUNNING = 1
    SUCCEEDED = 2
    DONE = 3

    @classmethod
    def _missing_(cls, value: object) -> "Status":  # noqa: ARG003 - it is what Enum calls
        """Read what is none of these as "over, and nobody knows how": the writer's memory is damaged."""
        return cls.DONE


def draw_token() -> int:
    """Draw a token: 63 random bits, never 0."""
    return int.from_bytes(os.urandom(8)) >> 1 or 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One claimed job, as a reader sees it."""

    id: int
    task: int
    attempt: int
    status: Status


class Claim:
    """One claim of a worker: its token, and the jobs it got.

    Written in an order in which a reader of a dead writer's memory is never misled: the token before the claim is sent,
    the count after the entries, an outcome before its place, and both before the status that says that the job is over.
    """

    __slots__ = ("_head", "_offsets", "_outcomes", "_used", "attempts", "ids", "left", "statuses", "tasks")

    def __init__(self, memory: memoryview) -> None:
        self._head = memory[: 2 * _WORD].cast("q")
        at = 2 * _WORD
        self.ids = memory[at : at + 8 * BATCH].cast("q")
        at += 8 * BATCH
        self.attempts = memory[at : at + 4 * BATCH].cast("I")
        at += 4 * BATCH
        self.tasks = memory[at : at + 2 * BATCH].cast("H")
        at += 2 * BATCH
        self.statuses = memory[at : at + BATCH]
        at += 2 * BATCH
        self._offsets = memory[at : at + 4 * BATCH].cast("I")
        at += 4 * BATCH
        self._outcomes = memory[at : at + OUTCOMES]
        self._used = _FIRST  # the writer's own
        #: Jobs not yet settled; the writer's own count, not shared.
        self.left = 0

    @property
    def token(self) -> int:
        """The fence of this claim; 0 when it is free."""
        return self._head[0]

    @property
    def _count(self) -> int:
        # What kills a worker may have written into this memory before.
        return min(max(self._head[1], 0), BATCH)

    def open(self, token: int) -> None:
        """Stand the token in memory; call it before the claim is sent."""
        self._head[1] = 0
        self._head[0] = token

    def fill(self, ids: Sequence[int], tasks: Sequence[int], attempts: Sequence[int]) -> None:
        """Enter the jobs the claim has got."""
        count = len(ids)
        self.statuses[:count] = bytes(count)
        self.ids[:count] = array("q", ids)
        self.attempts[:count] = array("I", attempts)
        self.tasks[:count] = array("H", tasks)
        self.forget(count)
        self.left = count
        self._head[1] = count

    def close(self) -> None:
        """Free the claim: every job of it is settled, or it never got any.

        The token last: without it the claim is the other thread's to open, and to fill.
        """
        self._head[1] = 0
        self._head[0] = 0

    def note(self, place: int, outcome: bytes) -> bool:
        """Write what became of a job; call it before its status says that it is over. False: there is no room."""
        start = self._used
        end = start + _SIZE + len(outcome)
        if end > OUTCOMES:
            return False
        self._outcomes[start : start + _SIZE] = len(outcome).to_bytes(_SIZE, "little")
        self._outcomes[start + _SIZE : end] = outcome
        self._offsets[place] = start
        self._used = end
        return True

    def noted(self, place: int) -> bytes | None:
        """Return what became of a job, if that was written. What killed the writer may have damaged its memory."""
        start = self._offsets[place]
        if not _FIRST <= start <= OUTCOMES - _SIZE:
            return None
        size = int.from_bytes(self._outcomes[start : start + _SIZE], "little")
        found = bytes(self._outcomes[start + _SIZE : start + _SIZE + size])
        return found if len(found) == size else None

    def forget(self, count: int) -> None:
        """Make room: the outcomes of the first `count` jobs are stored in the database."""
        self._offsets[:count] = array("I", bytes(4 * count))
        self._used = _FIRST

    def mark(self, jobs: Collection[int], status: Status) -> None:
        """Note how far some of its jobs are."""
        for place, job in enumerate(self.ids[: self._count]):
            if job in jobs:
                self.statuses[place] = status

    def entries(self) -> list[Entry]:
        """Return the jobs; empty while the answer to the claim is out."""
        return [
            Entry(self.ids[i], self.tasks[i], self.attempts[i], Status(self.statuses[i])) for i in range(self._count)
        ]

    def current(self) -> Entry | None:
        """Return the job whose handler runs."""
        found = bytes(self.statuses[: self._count]).find(Status.RUNNING)
        return None if found < 0 else Entry(self.ids[found], self.tasks[found], self.attempts[found], Status.RUNNING)
