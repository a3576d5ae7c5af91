"""Answers requests for the stacks of the jobs that this node runs."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from time import monotonic, sleep

from qworker.db.statements import Database
from qworker.stacks import JobStacks
from qworkerd.process.proc import alive, blocks, catches, state_of
from qworkerd.scheduler.maintenance import MaintenanceTasks
from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Role, Slot
from qworkerd.shared.stacks import DUMP_SIGNAL

#: Maximum number of jobs answered in one poll, and how long one of them is waited for there (seconds).
MAX_JOBS, WAIT = 3, 0.1
#: Time after which a process that has not written its stacks is reported (seconds).
GIVE_UP_AFTER = 5.0
#: A worker this close to its deadline may be killed: its stacks are then part of the error (seconds).
MARGIN = 1.0
RETENTION_INTERVAL = 600.0


@dataclass(frozen=True, slots=True)
class Dump:
    """A dump that was requested from a process."""

    slot: Slot
    pid: int
    #: Where it begins in the area of the child.
    offset: int
    since: float


class StackDumps:
    """Makes workers write their stacks, and stores them. A process that does not answer is looked at again later."""

    def __init__(self, node: NodeContext, stacks: JobStacks) -> None:
        self._node = node
        self._stacks = stacks
        self._pending: dict[int, Dump] = {}
        #: Those that are no longer waited for, and may still be written.
        self._abandoned: list[Dump] = []

    def add_to(self, maintenance: MaintenanceTasks) -> None:
        """Add the task that deletes old requests."""
        maintenance.add("stack requests", RETENTION_INTERVAL, self._stacks.delete_old, deferred=True, at_end=True)

    @property
    def pending(self) -> bool:
        """Whether dumps are awaited, or have to be discarded when they come."""
        return bool(self._pending or self._abandoned)

    def answer(self, database: Database, jobs: Iterable[int]) -> None:
        """Answer the requests for these jobs, as far as that is possible now."""
        self._clear_late()
        wanted = list(dict.fromkeys(jobs))[:MAX_JOBS]
        for job in self._pending.keys() - wanted:
            self._abandon(job)
        for job in wanted:
            slot = self._slot_of(job)
            if slot is None:
                self._refuse(database, job, "no worker of its node runs it at the moment; it has ended, or waits there")
            elif slot.floats[Slot.DEADLINE] < monotonic() + MARGIN:
                self._refuse(database, job, "it is past its timeout, and its worker is killed if it does not end at "
                             "once; the error of the job will have its stacks")  # fmt: skip
            else:
                self._answer(database, job, slot)

    def _answer(self, database: Database, job: int, slot: Slot) -> None:
        pid = slot.pid
        dump = self._pending.get(job)
        if dump is None or dump.pid != pid:
            if not alive(pid, slot.words[Slot.START_TICKS]) or not catches(pid, DUMP_SIGNAL):
                # The default action of the signal would end the process.
                self._refuse(database, job, f"process {pid} does not write its stacks")
                return
            if blocks(pid, DUMP_SIGNAL):  # it would write them later, once for each request
                self._refuse(database, job, f"process {pid} does not write its stacks: its handler blocks signals")
                return
            dump = self._pending[job] = Dump(slot, pid, slot.stacks.end(), monotonic())
            os.kill(pid, DUMP_SIGNAL)
        text = _complete(slot, dump.offset)
        running = slot.current()
        if text and running is not None and running.id == job:
            # A later dump, for example of a crash, must not begin with this one.
            slot.stacks.clear()
            del self._pending[job]
            self._stacks.store(
                database, self._node.table.header.node, job, worker=str(slot.child), pid=pid,
                ran=monotonic() - slot.floats[Slot.STARTED], stacks=text,
            )  # fmt: skip
        elif monotonic() - dump.since > GIVE_UP_AFTER:
            self._refuse(
                database, job,
                f"process {pid} of worker {slot.child} has not written its stacks for {GIVE_UP_AFTER:g} s: "
                f"it is {state_of(pid)}",
            )  # fmt: skip

    def _refuse(self, database: Database, job: int, problem: str) -> None:
        self._abandon(job)
        self._stacks.store(database, self._node.table.header.node, job, problem=problem)

    def _abandon(self, job: int) -> None:
        """Stop waiting for a dump."""
        if (dump := self._pending.pop(job, None)) is not None:
            self._abandoned.append(dump)

    def _clear_late(self) -> None:
        """Discard dumps that nobody waits for: the error of a job whose worker dies must not begin with one."""
        left = []
        for dump in self._abandoned:
            slot = dump.slot
            # Past its deadline, the supervisor makes it write its stacks.
            if slot.pid != dump.pid or slot.floats[Slot.DEADLINE] < monotonic() + MARGIN:
                continue
            if slot.stacks.read_from(dump.offset):
                slot.stacks.clear()
            else:
                left.append(dump)
        self._abandoned = left

    def _slot_of(self, job: int) -> Slot | None:
        for slot in self._node.table.live(Role.WORKER):
            running = slot.current()
            if running is not None and running.id == job:
                return slot
        return None


def _complete(slot: Slot, offset: int) -> str:
    """Return the dump that begins at an offset once it does not grow any more; an empty string if there is none yet."""
    until, before = monotonic() + WAIT, ""
    while True:
        text = slot.stacks.read_from(offset)
        if (text and text == before) or monotonic() >= until:
            return text
        before = text
        sleep(0.01)
