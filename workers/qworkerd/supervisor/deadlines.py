"""Kill children that are past their deadline, after a dump of their stacks."""

from collections.abc import Iterable
from time import monotonic

from qworkerd import log
from qworkerd.shared.cause import Cause
from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Phase, Slot
from qworkerd.shared.stacks import DUMP_SIGNAL
from qworkerd.supervisor.handle import ChildHandle, Overdue

#: Time between the check that finds a child overdue and the one that confirms it (seconds).
CONFIRM_AFTER = 0.1
#: Time between the stack dump and the kill (seconds).
STACK_DUMP_GRACE = 0.5


class DeadlineEnforcer:
    """Enforces the deadline of each phase: a boot that hangs, a stalled query, the hard timeout of a job.

    A child is overdue when two checks find the same phase past the same deadline: a single check may read a slot while
    it is being written.
    """

    def __init__(self, node: NodeContext) -> None:
        self._node = node
        self._log = log.get()

    def enforce(self, children: Iterable[ChildHandle]) -> None:
        """Check every child, and kill those that an earlier check has found overdue."""
        now = monotonic()
        for child in children:
            if child.slot is None:
                continue
            if child.kill_reason is not None:
                if now >= child.kill_at:
                    self._kill(child, child.slot, child.kill_reason, now)
                continue
            found = expired(child.slot, now)
            if found is None or child.overdue != found:
                child.overdue, child.overdue_since = found, now
            elif now - child.overdue_since >= CONFIRM_AFTER:
                self._mark_overdue(child, child.slot, found, now)

    def _kill(self, child: ChildHandle, slot: Slot, reason: Cause, now: float) -> None:
        """Kill the child, unless it has recovered during the stack dump: its next job must not be killed."""
        if child.killed or expired(slot, now) == child.overdue:
            child.kill(reason, now)
            return
        child.kill_reason, child.overdue = None, None
        slot.stacks.clear()
        self._log.info("child.recovered", child=child.name, child_pid=child.pid)

    def due(self, child: ChildHandle, slot: Slot) -> float:
        """Return when the child must be checked next (monotonic)."""
        if child.kill_reason:
            return child.kill_at
        return child.overdue_since + CONFIRM_AFTER if child.overdue else slot.floats[Slot.DEADLINE]

    def _mark_overdue(self, child: ChildHandle, slot: Slot, found: Overdue, now: float) -> None:
        phase, running = Phase(found.phase), slot.current()
        child.kill_reason = Cause.TIMEOUT if phase is Phase.RUNNING and running else Cause.STALLED
        child.kill_at = now + STACK_DUMP_GRACE
        facts = {"job": running.id, "task": self._node.task_name(running.task)} if running else {}
        self._log.warning(
            "child.overdue", child=child.name, child_pid=child.pid, phase=phase.name.lower(),
            overdue_by=round(now - found.deadline, 3), **facts,
        )  # fmt: skip
        slot.stacks.clear()  # of a dump that was asked for by hand, and was written too late
        child.signal(DUMP_SIGNAL)


def expired(slot: Slot, now: float) -> Overdue | None:
    """Return the phase whose deadline has passed, and the deadline, also of the acknowledger thread; else None."""
    if slot.floats[Slot.DEADLINE] < now:
        return Overdue(slot.words[Slot.PHASE], slot.floats[Slot.DEADLINE])
    if slot.words[Slot.CANCEL] and slot.floats[Slot.CANCEL_DEADLINE] < now:
        # Cancelled and still running: a handler in C code does not return to Python to handle the signal.
        running = slot.current()
        if running is not None and running.id == slot.words[Slot.CANCEL]:
            return Overdue(slot.words[Slot.PHASE], slot.floats[Slot.CANCEL_DEADLINE])
    ack_deadline = slot.floats[Slot.ACK_DEADLINE]
    return Overdue(Phase.SETTLING, ack_deadline) if 0 < ack_deadline < now else None
