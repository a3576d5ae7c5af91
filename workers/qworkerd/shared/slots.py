"""The shared memory between supervisor, scheduler and workers: a header, and a slot for each child.

One anonymous shared mapping, made before the first fork. Each field has one writer at a time, and aligned 64-bit stores
do not tear. A slot outlives its process: the supervisor marks it DEAD with the cause, and it stays the dead child's
grave, claims and all, until the scheduler has settled its jobs in the database and marks it FREE.
"""

import enum
import mmap
import socket
from collections.abc import Iterator
from time import monotonic

from qworkerd.shared.claim import CLAIM_SIZE, CLAIMS, Claim, Entry
from qworkerd.shared.header import Header
from qworkerd.shared.stacks import StackDump, Stacks

_WORD = 8
_HEADER = 16 * _WORD
_FIELDS = 24 * _WORD
_CAUSE = 64
#: Most of it is never written to: memory is to be reserved where it is.
_FLAGS = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
_SLOT = _FIELDS + _CAUSE + CLAIMS * CLAIM_SIZE


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

    @classmethod
    def _missing_(cls, value: object) -> "Phase":  # noqa: ARG003 - it is what Enum calls
        """Read what is none of these as the phase in which other code than ours writes to memory."""
        return cls.RUNNING


class IntField:
    """A 64-bit integer of a slot, read by name; the hot path indexes `Slot.words` itself."""

    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        self._number = number

    def __get__(self, slot: "Slot", owner: type["Slot"] | None = None) -> int:
        """Read the field."""
        return slot.words[self._number]


class FloatField:
    """A float of a slot (seconds, monotonic unless the field says otherwise), read by name."""

    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        self._number = number

    def __get__(self, slot: "Slot", owner: type["Slot"] | None = None) -> float:
        """Read the field."""
        return slot.floats[self._number]


class Slot:
    """What a child tells the others; see the module for who writes when."""

    __slots__ = ("_cause", "claims", "floats", "index", "stacks", "words")

    # Field numbers, for the hot path: `slot.words[Slot.PHASE] = …`, `slot.floats[Slot.DEADLINE] = …`.
    STATE, ROLE, CHILD, PID, START_TICKS, PHASE, DONE, STALE, CANCEL, RELEASED_SEQ, RELEASE_COUNT, MAXRSS = range(12)
    DEADLINE, ACK_DEADLINE, STARTED, SINCE, SLOW_AT, CANCEL_DEADLINE, CPU, ENDED = range(12, 20)

    role, child, pid, start_ticks = IntField(ROLE), IntField(CHILD), IntField(PID), IntField(START_TICKS)
    phase, done, stale, maxrss = IntField(PHASE), IntField(DONE), IntField(STALE), IntField(MAXRSS)
    deadline, started, since = FloatField(DEADLINE), FloatField(STARTED), FloatField(SINCE)
    cpu, ended = FloatField(CPU), FloatField(ENDED)

    def __init__(self, memory: memoryview, index: int, stacks: StackDump) -> None:
        self.index = index
        #: Where the child leaves its stacks.
        self.stacks = stacks
        self.words = memory[:_FIELDS].cast("q")
        self.floats = memory[:_FIELDS].cast("d")
        self._cause = memory[_FIELDS : _FIELDS + _CAUSE]
        at = _FIELDS + _CAUSE
        self.claims = tuple(Claim(memory[at + n * CLAIM_SIZE : at + (n + 1) * CLAIM_SIZE]) for n in range(CLAIMS))

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

    def assign(self, role: Role, child: int, deadline: float, now: float) -> None:
        """Make the slot a child's that is about to be forked."""
        for number in range(len(self.words)):
            # What the child before has handed back is still to be looked for.
            if number not in (Slot.RELEASED_SEQ, Slot.RELEASE_COUNT):
                self.words[number] = 0
        self._cause[:] = bytes(_CAUSE)
        self.stacks.clear()
        self.words[Slot.ROLE] = role
        self.words[Slot.CHILD] = child
        self.floats[Slot.SINCE] = now
        self.enter(Phase.BOOTING, deadline)
        self.state = SlotState.LIVE

    def mark_dead(self, cause: str, maxrss: int = 0, cpu: float = 0.0) -> None:
        """Mark the child dead: what it leaves is now the scheduler's to settle.

        maxrss and cpu are what it has used (MiB, seconds), 0 where nobody has measured it.
        """
        self.words[Slot.MAXRSS], self.floats[Slot.CPU], self.floats[Slot.ENDED] = maxrss, cpu, monotonic()
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
    def session_tag(self) -> str:
        """What the sessions of this process are called in the server, so that those of a dead one can be found."""
        return f"#{socket.gethostname()[:24]}.{self.pid}.{self.start_ticks}"

    def current(self) -> Entry | None:
        """Return the job whose handler runs, or ran when the child died."""
        return next((entry for claim in self.open_claims() if (entry := claim.current())), None)


class SlotTable:
    """The mapping as a whole. Children inherit it by fork; nothing else refers to it."""

    def __init__(self, slots: int) -> None:
        self._memory = mmap.mmap(-1, _HEADER + slots * _SLOT, flags=_FLAGS)
        view = memoryview(self._memory)
        self.header = Header(view[:_HEADER])
        stacks = Stacks()
        self.slots = tuple(
            Slot(view[_HEADER + n * _SLOT : _HEADER + (n + 1) * _SLOT], n, StackDump(stacks, n)) for n in range(slots)
        )

    def __iter__(self) -> Iterator[Slot]:
        """Yield every slot."""
        return iter(self.slots)

    def live(self, role: Role | None = None) -> list[Slot]:
        """Return the slots of living children."""
        return [s for s in self.slots if s.state is SlotState.LIVE and role in (None, s.role)]

    def dead(self) -> list[Slot]:
        """Return the graves that wait for the scheduler."""
        return [s for s in self.slots if s.state is SlotState.DEAD]

    def free_slot(self) -> Slot | None:
        """Return a free slot; None while every one is somebody's or a grave."""
        return next((s for s in self.slots if s.state is SlotState.FREE), None)

    def tokens(self) -> set[int]:
        """Return the tokens of every claim that is out, graves included."""
        return {claim.token for slot in self.slots if slot.state is not SlotState.FREE for claim in slot.open_claims()}
