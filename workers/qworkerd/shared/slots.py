"""The shared memory of supervisor, scheduler and workers: a header, and a slot for each child.

It is one anonymous shared mapping, created before the first fork. Each field has a single writer at a time, and aligned
64-bit stores do not tear. A slot outlives its process. The supervisor marks it DEAD with the cause of death. The claims
stay in the dead slot until the scheduler has settled its jobs in the database and marks it FREE.
"""

import enum
import mmap
import socket
import struct
from collections.abc import Iterator
from time import monotonic

from qworkerd.log.line_ring import RING_BYTES, LineRing
from qworkerd.shared.claim import CLAIM_SIZE, MAX_CLAIMS, Claim, Entry
from qworkerd.shared.fields import FloatField, IntField
from qworkerd.shared.header import Header
from qworkerd.shared.stacks import StackDump, Stacks

_WORD = 8
_HEADER = 16 * _WORD
_FIELDS = 24 * _WORD
_CAUSE = 64
#: Most of the mapping is never written, so the kernel need not reserve memory for all of it.
_FLAGS = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
#: A traceparent has 55 characters; before it stands when its attempt started.
_TRACEPARENT = 55
_TRACE = 64
_LINES = _FIELDS + _CAUSE + _TRACE + MAX_CLAIMS * CLAIM_SIZE
_SLOT = _LINES + RING_BYTES
_AT = struct.Struct("d")


class SlotState(enum.IntEnum):
    """The process that may write the slot: none, the child, or the scheduler."""

    FREE = 0
    LIVE = 1
    DEAD = 2


class Role(enum.IntEnum):
    """The role of a child."""

    SCHEDULER = 1
    WORKER = 2
    EXPORTER = 3


class Phase(enum.IntEnum):
    """The phase of a child; each phase has a deadline."""

    BOOTING = 0
    IDLE = 1
    CLAIMING = 2
    RUNNING = 3
    SETTLING = 4
    CLOSING = 5

    @classmethod
    def _missing_(cls, value: object) -> "Phase":  # noqa: ARG003 - the signature is Enum's
        """Read any other value as RUNNING, the phase in which the code of handlers may damage the memory."""
        return cls.RUNNING


class Slot:
    """The state that a child shares; see the module for which process writes when."""

    __slots__ = ("_cause", "_trace", "claims", "floats", "index", "lines", "stacks", "words")

    # Field numbers, for the hot path: `slot.words[Slot.PHASE] = …`, `slot.floats[Slot.DEADLINE] = …`.
    STATE, ROLE, CHILD, PID, START_TICKS, PHASE, DONE, STALE, CANCEL, RELEASED_SEQ, RELEASE_COUNT, MAXRSS = range(12)
    DEADLINE, ACK_DEADLINE, STARTED, SINCE, SLOW_AT, CANCEL_DEADLINE, CPU, ENDED = range(12, 20)
    #: The job whose lines are followed, set by the scheduler.
    FOLLOWED = 20

    role, child, pid, start_ticks = IntField(ROLE), IntField(CHILD), IntField(PID), IntField(START_TICKS)
    phase, done, stale, maxrss = IntField(PHASE), IntField(DONE), IntField(STALE), IntField(MAXRSS)
    deadline, started, since = FloatField(DEADLINE), FloatField(STARTED), FloatField(SINCE)
    cpu, ended = FloatField(CPU), FloatField(ENDED)

    def __init__(self, memory: memoryview, index: int, stacks: StackDump) -> None:
        self.index = index
        #: The stack dump of the child.
        self.stacks = stacks
        self.words = memory[:_FIELDS].cast("q")
        self.floats = memory[:_FIELDS].cast("d")
        self._cause = memory[_FIELDS : _FIELDS + _CAUSE]
        at = _FIELDS + _CAUSE
        self._trace = memory[at : at + _TRACE]
        at += _TRACE
        #: The last log lines of the child.
        self.lines = LineRing(memory[_LINES:_SLOT])
        self.claims = tuple(Claim(memory[at + n * CLAIM_SIZE : at + (n + 1) * CLAIM_SIZE]) for n in range(MAX_CLAIMS))

    @property
    def state(self) -> SlotState:
        """Which process may write the slot."""
        return SlotState(self.words[Slot.STATE])

    @state.setter
    def state(self, state: SlotState) -> None:
        self.words[Slot.STATE] = state

    @property
    def cause(self) -> str:
        """Why the child died, as determined by the supervisor."""
        return bytes(self._cause).rstrip(b"\0").decode()

    def enter(self, phase: Phase, deadline: float) -> None:
        """Enter a phase that must end by the deadline (monotonic seconds; infinite for no limit)."""
        self.floats[Slot.DEADLINE] = deadline
        self.words[Slot.PHASE] = phase

    def assign(self, role: Role, child: int, deadline: float, now: float) -> None:
        """Assign the slot to a child that is about to be forked."""
        for number in range(len(self.words)):
            # The releases of the previous child must still be taken into account.
            if number not in (Slot.RELEASED_SEQ, Slot.RELEASE_COUNT):
                self.words[number] = 0
        self._cause[:] = bytes(_CAUSE)
        self.stacks.clear()
        self.lines.clear()
        self.words[Slot.ROLE] = role
        self.words[Slot.CHILD] = child
        self.floats[Slot.SINCE] = now
        self.enter(Phase.BOOTING, deadline)
        self.state = SlotState.LIVE

    def mark_dead(self, cause: str, maxrss: int = 0, cpu: float = 0.0) -> None:
        """Mark the child dead: the scheduler may now settle its claims.

        maxrss and cpu are the resources that it used (MiB, seconds), 0 if they were not measured.
        """
        self.words[Slot.MAXRSS], self.floats[Slot.CPU], self.floats[Slot.ENDED] = maxrss, cpu, monotonic()
        text = cause.encode()[:_CAUSE]
        self._cause[: len(text)] = text
        self.state = SlotState.DEAD

    def free(self) -> None:
        """Free the slot: all its jobs are settled in the database."""
        for claim in self.open_claims():
            claim.close()
        self.state = SlotState.FREE

    def open_claims(self) -> Iterator[Claim]:
        """Yield the open claims."""
        return (claim for claim in self.claims if claim.token)

    def set_trace(self, started: float, traceparent: str) -> None:
        """Keep the traceparent of the attempt that started then (monotonic seconds)."""
        _AT.pack_into(self._trace, 0, 0.0)
        self._trace[_WORD : _WORD + _TRACEPARENT] = traceparent.encode()[:_TRACEPARENT].ljust(_TRACEPARENT, b"\0")
        _AT.pack_into(self._trace, 0, started)

    def trace_of(self, started: float) -> str | None:
        """Return the traceparent of the attempt that started then; None if it has none."""
        if _AT.unpack_from(self._trace)[0] != started:
            return None
        return bytes(self._trace[_WORD : _WORD + _TRACEPARENT]).rstrip(b"\0").decode(errors="replace") or None

    @property
    def session_tag(self) -> str:
        """Part of the application_name of this process's sessions, by which they are found after it has died."""
        return f"#{socket.gethostname()[:24]}.{self.pid}.{self.start_ticks}"

    def current(self) -> Entry | None:
        """Return the job whose handler runs, or ran when the child died."""
        return next((entry for claim in self.open_claims() if (entry := claim.current())), None)


class SlotTable:
    """The whole mapping; children inherit it by fork."""

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
        """Return the slots of live children."""
        return [s for s in self.slots if s.state is SlotState.LIVE and role in (None, s.role)]

    def dead(self) -> list[Slot]:
        """Return the slots of dead children that the scheduler has not settled."""
        return [s for s in self.slots if s.state is SlotState.DEAD]

    def free_slot(self, *, reserved: int = 0) -> Slot | None:
        """Return a free slot, or None if only `reserved` ones are neither in use nor waiting to be settled."""
        free = [s for s in self.slots if s.state is SlotState.FREE]
        return free[0] if len(free) > reserved else None

    def tokens(self) -> set[int]:
        """Return the tokens of all open claims, including those of dead slots."""
        return {claim.token for slot in self.slots if slot.state is not SlotState.FREE for claim in slot.open_claims()}
