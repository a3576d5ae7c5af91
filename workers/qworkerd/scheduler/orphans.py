"""End the workers of a supervisor that is gone."""

import os
import signal
from contextlib import suppress
from time import monotonic, sleep

from qworkerd.process.proc import alive
from qworkerd.shared.cause import Cause
from qworkerd.shared.slots import Role, SlotState, SlotTable

#: Time to wait for killed processes to disappear (seconds).
KILL_WAIT = 2.0


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
    until = monotonic() + KILL_WAIT
    while any(alive(pid, start_ticks) for _, pid, start_ticks in workers) and monotonic() < until:
        sleep(0.005)
    for slot, pid, _ in workers:
        if slot.state is SlotState.LIVE and slot.pid == pid:
            slot.mark_dead(Cause.SUPERVISOR_LOST)
