"""Signal the workers that run jobs somebody has cancelled."""

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from time import monotonic

from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Role, Slot


def signal_cancelled(node: NodeContext, jobs: Iterable[int]) -> None:
    """Interrupt these jobs where they run; from now on each has the grace period to end, or its worker is killed."""
    wanted = set(jobs)
    if not wanted:
        return
    for slot in node.table.live(Role.WORKER):
        running = slot.current()
        if running is not None and running.id in wanted:
            if slot.words[Slot.CANCEL] != running.id:
                slot.floats[Slot.CANCEL_DEADLINE] = monotonic() + node.settings.kill_grace
                slot.words[Slot.CANCEL] = running.id
            with suppress(ProcessLookupError):  # it is dead and reaped, and its slot not yet a grave
                os.kill(slot.pid, signal.SIGUSR1)
