"""The shared memory between supervisor, scheduler and workers: a header, and a slot for each child.

One anonymous shared mapping, made before the first fork. Each field has one writer at a time, and aligned 64-bit stores
do not tear. A slot outlives its process: the supervisor marks it DEAD with the cause, and it stays the dead child's
grave, claims and all, until the scheduler has settled its jobs in the database and marks it FREE.
"""

import enum
import mmap
import secrets
import socket
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import CLOCK_BOOTTIME, clock_gettime
from typing import Any

#: How many jobs one claim may take.
BATCH = 256
#: How many claims a worker may have open: what runs, what is being acknowledged, and the rest for claims kept open by
#: rows that somebody else has locked.
CLAIMS = 32
#: Stands for a task this node does not know.
UNKNOWN = 0xFFFF

_WORD = 8
_HEADER = 16 * _WORD
_FIELDS = 24 * _WORD
_CAUSE = 64
_CLAIM = 2 * _WORD + BATCH * (8 + 4 + 2 + 2)  # token, count; ids, attempts, tasks, statuses (padded)
_SLOT = _FIELDS + _CAUSE + CLAIMS * _CLAIM


class SlotState(enum.IntEnum):
    """Whose turn it is to write a slot."""

    FREE = 0
    LIVE = 1
    DEAD = 2


class Role(enum.IntEnum):
    """What a child does."""

    SCHEDULER = 1
    WORKER = 2


class Phase(enum.IntEnum):
    """What a child is doing; each phase has a deadline."""

    BOOTING = 0
    IDLE = 1
    CLAIMING = 2
    RUNNING = 3
    SETTLING = 4
    CLOSING = 5


class Status(enum.IntEnum):
    """How far a claimed job is; the store of RUNNING comes after everything that belongs to the run."""

    UNSTARTED = 0
    RUNNING = 1
    SUCCEEDED = 2
    DONE = 3


def boottime() -> float:
    """Return the clock that leases are measured by: it goes on while the machine sleeps (seconds)."""
    return clock_gettime(CLOCK_BOOTTIME)


def draw_token() -> int:
    """Draw a token: 63 random bits, never 0."""
    return secrets.randbits(63) or 1


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
    the count after the entries.
    """

    __slots__ = ("_head", "attempts", "ids", "left", "statuses", "tasks")

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
        #: Jobs not yet settled; the writer's own count, not shared.
        self.left = 0

    @property
    def token(self) -> int:
        """The fence of this claim; 0 when it is free."""
        return self._head[0]

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
        self.left = count
        self._head[1] = count

    def close(self) -> None:
        """Free the claim: every job of it is settled, or it never got any."""
        self._head[0] = 0
        self._head[1] = 0

    def entries(self) -> list[Entry]:
        """Return the jobs; empty while the answer to the claim is out."""
        return [
            Entry(self.ids[i], self.tasks[i], self.attempts[i], Status(self.statuses[i])) for i in range(self._head[1])
        ]

    def current(self) -> Entry | None:
        """Return the job whose handler runs."""
        found = bytes(self.statuses[: self._head[1]]).find(Status.RUNNING)
        return None if found < 0 else Entry(self.ids[found], self.tasks[found], self.attempts[found], Status.RUNNING)


class Slot:
    """What a child tells the others; see the module for who writes when."""

    __slots__ = ("_cause", "claims", "floats", "index", "words")

    # Field numbers, for the hot path: `slot.words[Slot.PHASE] = …`, `slot.floats[Slot.DEADLINE] = …`.
    STATE, ROLE, SEAT, PID, BIRTH, PHASE, DONE, STALE, FAILED, CANCEL = range(10)
    DEADLINE, CLERK_DEADLINE, STARTED, SINCE, SLOW = range(10, 15)

    def __init__(self, memory: memoryview, index: int) -> None:
        self.index = index
        self.words = memory[:_FIELDS].cast("q")
        self.floats = memory[:_FIELDS].cast("d")
        self._cause = memory[_FIELDS : _FIELDS + _CAUSE]
        at = _FIELDS + _CAUSE
        self.claims = tuple(Claim(memory[at + n * _CLAIM : at + (n + 1) * _CLAIM]) for n in range(CLAIMS))

    def __getattr__(self, name: str) -> Any:
        """Read a field by its lower-case name, for everything but the hot path."""
        number = getattr(Slot, name.upper(), None)
        if isinstance(number, int):
            return self.floats[number] if number >= Slot.DEADLINE else self.words[number]
        raise AttributeError(name)

    @property
    def state(self) -> SlotState:
        """Whose turn it is."""
        return SlotState(self.words[Slot.STATE])

    @state.setter
    def state(self, state: SlotState) -> None:
        self.words[Slot.STATE] = state

    @property
    def cause(self) -> str:
        """Why the child died, as the supervisor saw it."""
        return bytes(self._cause).rstrip(b"\0").decode()

    def enter(self, phase: Phase, deadline: float) -> None:
        """Begin a phase, to be over by the deadline (monotonic seconds; infinite: no limit)."""
        self.floats[Slot.DEADLINE] = deadline
        self.words[Slot.PHASE] = phase

    def occupy(self, role: Role, seat: int, deadline: float, now: float) -> None:
        """Make the slot a child's that is about to be forked."""
        for number in range(len(self.words)):
            self.words[number] = 0
        self._cause[:] = bytes(_CAUSE)
        self.words[Slot.ROLE] = role
        self.words[Slot.SEAT] = seat
        self.floats[Slot.SINCE] = now
        self.enter(Phase.BOOTING, deadline)
        self.state = SlotState.LIVE

    def bury(self, cause: str) -> None:
        """Mark the child dead: what it leaves is now the scheduler's to settle."""
        text = cause.encode()[:_CAUSE]
        self._cause[: len(text)] = text
        self.state = SlotState.DEAD

    def free(self) -> None:
        """Give the slot up: nothing of it is left in the database."""
        for claim in self.open_claims():
            claim.close()
        self.state = SlotState.FREE

    def open_claims(self) -> Iterator[Claim]:
        """Yield the claims that are out."""
        return (claim for claim in self.claims if claim.token)

    @property
    def tag(self) -> str:
        """What the sessions of this process are called in the server, so that those of a dead one can be found."""
        return f"#{socket.gethostname()[:24]}.{self.pid}.{self.birth}"

    def current(self) -> Entry | None:
        """Return the job whose handler runs, or ran when the child died."""
        return next((entry for claim in self.open_claims() if (entry := claim.current())), None)


class Header:
    """What concerns the whole node."""

    __slots__ = ("floats", "words")

    NODE, DRAINING, EMPTY, BUDGET, CONDEMNED = range(5)
    LEASE_UNTIL, LOOKED = range(5, 7)
    #: Refused writes of workers that are gone. Written by the supervisor.
    STALE = 7

    def __init__(self, memory: memoryview) -> None:
        self.words = memory.cast("q")
        self.floats = memory.cast("d")

    @property
    def node(self) -> int:
        """The node's id in the database; 0 before it is registered. Written by the scheduler."""
        return self.words[Header.NODE]

    @node.setter
    def node(self, value: int) -> None:
        self.words[Header.NODE] = value

    @property
    def lease_until(self) -> float:
        """Until when nobody else may take this node's jobs (`boottime`). Written by the scheduler."""
        return self.floats[Header.LEASE_UNTIL]

    @lease_until.setter
    def lease_until(self, value: float) -> None:
        self.floats[Header.LEASE_UNTIL] = value

    @property
    def condemned(self) -> bool:
        """Others have declared the node dead: set by the scheduler, cleared by the supervisor once no worker lives."""
        return bool(self.words[Header.CONDEMNED])

    @condemned.setter
    def condemned(self, value: bool) -> None:
        self.words[Header.CONDEMNED] = value

    @property
    def looked(self) -> float:
        """When the supervisor last went round its loop (`boottime`)."""
        return self.floats[Header.LOOKED]

    @looked.setter
    def looked(self, value: float) -> None:
        self.floats[Header.LOOKED] = value

    @property
    def draining(self) -> bool:
        """No new work: the node is shutting down. Written by the supervisor."""
        return bool(self.words[Header.DRAINING])

    @draining.setter
    def draining(self, value: bool) -> None:
        self.words[Header.DRAINING] = value

    @property
    def empty(self) -> bool:
        """The queues hold no unfinished work: with --drain, the end. Written by the scheduler."""
        return bool(self.words[Header.EMPTY])

    @empty.setter
    def empty(self, value: bool) -> None:
        self.words[Header.EMPTY] = value


class SlotTable:
    """The mapping as a whole. Children inherit it by fork; nothing else refers to it."""

    def __init__(self, slots: int) -> None:
        self._memory = mmap.mmap(-1, _HEADER + slots * _SLOT)
        view = memoryview(self._memory)
        self.header = Header(view[:_HEADER])
        self.slots = tuple(Slot(view[_HEADER + n * _SLOT : _HEADER + (n + 1) * _SLOT], n) for n in range(slots))

    def __iter__(self) -> Iterator[Slot]:
        """Yield every slot."""
        return iter(self.slots)

    def live(self, role: Role | None = None) -> list[Slot]:
        """Return the slots of living children."""
        return [s for s in self.slots if s.state is SlotState.LIVE and role in (None, s.role)]

    def dead(self) -> list[Slot]:
        """Return the graves that wait for the scheduler."""
        return [s for s in self.slots if s.state is SlotState.DEAD]

    def vacant(self) -> Slot | None:
        """Return a free slot; None while every one is somebody's or a grave."""
        return next((s for s in self.slots if s.state is SlotState.FREE), None)

    def tokens(self) -> set[int]:
        """Return the tokens of every claim that is out, graves included."""
        return {claim.token for slot in self.slots if slot.state is not SlotState.FREE for claim in slot.open_claims()}
