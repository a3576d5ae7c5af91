"""Detects that the supervisor is gone, and ends the workers that it has left behind."""

import os
import signal
from contextlib import suppress
from time import monotonic, sleep

from qworkerd import log
from qworkerd.process.proc import alive
from qworkerd.shared.cause import Cause
from qworkerd.shared.context import NodeContext
from qworkerd.shared.header import boottime
from qworkerd.shared.slots import Role, SlotState, SlotTable

#: Time to wait for killed processes to disappear (seconds).
KILL_TIMEOUT = 2.0
#: Time without a sign of life of the supervisor after which, if the lease has ended, it is considered lost (seconds).
SUPERVISOR_TIMEOUT = 2.0


class SupervisorWatch:
    """Monitors the supervisor, which enforces timeouts and the lease."""

    def __init__(self, node: NodeContext) -> None:
        self._table = node.table
        self._header = node.table.header
        self._lease_timeout = node.settings.lease_timeout
        self._parent = os.getppid()

    @property
    def lost(self) -> bool:
        """Whether the supervisor is gone or has stopped for too long."""
        if os.getppid() != self._parent:
            return True
        now, lease_until = boottime(), self._header.lease_until
        silent = now - self._header.supervisor_seen_at
        return silent >= self._lease_timeout or (silent >= SUPERVISOR_TIMEOUT and 0 < lease_until < now)

    def end_workers(self) -> None:
        """Kill the workers in place of the supervisor."""
        log.get().error("supervisor.lost", hint="its workers are killed and their jobs released")
        # A supervisor that was only stopped may continue. Without a lease it starts no new workers.
        self._header.lease_until = 0.0
        end_workers(self._table)


def end_workers(table: SlotTable) -> None:
    """Kill every worker with its process group, wait until they are gone, and mark their slots dead.

    If the supervisor died, the kernel has killed the workers, and only the subprocesses of their jobs are left. If it
    is merely stopped, the workers are killed here; nobody reaps them, so their pids cannot be reused. A stopped
    supervisor may continue at any time and assign another child to a slot whose process has died.
    """
    workers = [(slot, slot.pid, slot.start_ticks) for slot in table.live(Role.WORKER) if slot.pid]
    for _, pid, start_ticks in workers:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        if alive(pid, start_ticks):
            # Its handler may have moved it to another group (setpgid(2)).
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
    until = monotonic() + KILL_TIMEOUT
    while any(alive(pid, start_ticks) for _, pid, start_ticks in workers) and monotonic() < until:
        sleep(0.005)
    for slot, pid, _ in workers:
        if slot.state is SlotState.LIVE and slot.pid == pid:
            slot.mark_dead(Cause.SUPERVISOR_LOST)
