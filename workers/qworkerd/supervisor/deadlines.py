"""End children that are past their deadline: dump their stacks, then kill the whole group."""

from collections.abc import Iterable
from time import monotonic

from qworkerd import log
from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Phase, Slot
from qworkerd.shared.stacks import DUMP_SIGNAL
from qworkerd.supervisor.handle import ChildHandle

#: Between the first look that finds a child overdue and the second (seconds).
CONFIRM_AFTER = 0.1
#: Between the dump of its stacks and the kill (seconds).
STACK_DUMP_GRACE = 0.5


class DeadlineEnforcer:
    """One rule for a hung boot, a stalled query, a job's hard timeout: every phase has a deadline.

    A child is overdue when two looks find the same phase past the same deadline: a single look may read a slot while it
    is being written.
    """

    def __init__(self, node: NodeContext) -> None:
        self._node = node
        self._log = log.get()

    def enforce(self, seats: Iterable[ChildHandle]) -> None:
        """Look at every child, and carry out what earlier looks have decided."""
        now = monotonic()
        for seat in seats:
            if seat.slot is None:
                continue
            if seat.kill_reason:
                if now >= seat.kill_at:
                    self._kill(seat, seat.slot, now)
                continue
            found = expired(seat.slot, now)
            if found is None or seat.overdue != found:
                seat.overdue, seat.overdue_since = found, now
            elif now - seat.overdue_since >= CONFIRM_AFTER:
                self._mark_overdue(seat, seat.slot, found, now)

    def _kill(self, seat: ChildHandle, slot: Slot, now: float) -> None:
        """Kill the child, unless it has got over it while its stacks were dumped: its next job is not to blame."""
        if seat.killed or expired(slot, now) == seat.overdue:
            seat.kill(seat.kill_reason, now)
            return
        seat.kill_reason, seat.overdue = "", None
        slot.stacks.clear()
        self._log.info("child.recovered", child=seat.name, child_pid=seat.pid)

    def due(self, seat: ChildHandle, slot: Slot) -> float:
        """Return when the child has to be looked at next (monotonic)."""
        if seat.kill_reason:
            return seat.kill_at
        return seat.overdue_since + CONFIRM_AFTER if seat.overdue else slot.floats[Slot.DEADLINE]

    def _mark_overdue(self, seat: ChildHandle, slot: Slot, found: tuple[int, float], now: float) -> None:
        phase, running = Phase(found[0]), slot.current()
        seat.kill_reason = "timeout" if phase is Phase.RUNNING and running else "stalled"
        seat.kill_at = now + STACK_DUMP_GRACE
        facts = {"job": running.id, "task": self._node.task_name(running.task)} if running else {}
        self._log.warning(
            "child.overdue", child=seat.name, child_pid=seat.pid, phase=phase.name.lower(),
            overdue_by=round(now - found[1], 3), **facts,
        )  # fmt: skip
        seat.signal(DUMP_SIGNAL)


def expired(slot: Slot, now: float) -> tuple[int, float] | None:
    """Return the phase and the deadline that is over, the clerk thread's included; None while all is well."""
    if slot.floats[Slot.DEADLINE] < now:
        return slot.words[Slot.PHASE], slot.floats[Slot.DEADLINE]
    if slot.words[Slot.CANCEL] and slot.floats[Slot.CANCEL_DEADLINE] < now:
        # Cancelled, and still running: a handler in C code hears no signal.
        running = slot.current()
        if running is not None and running.id == slot.words[Slot.CANCEL]:
            return slot.words[Slot.PHASE], slot.floats[Slot.CANCEL_DEADLINE]
    clerk = slot.floats[Slot.ACK_DEADLINE]
    return (Phase.SETTLING, clerk) if 0 < clerk < now else None
