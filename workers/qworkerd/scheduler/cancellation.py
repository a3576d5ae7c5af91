"""Signals the workers whose running jobs have been cancelled."""

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from time import monotonic

from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Role, Slot


def signal_cancelled(node: NodeContext, jobs: Iterable[int]) -> None:
    """Interrupt these jobs if they are running. If one does not end within the grace period, its worker is killed."""
    cancelled = set(jobs)
    if not cancelled:
        return
    for slot in node.table.live(Role.WORKER):
        running = slot.current()
        if running is not None and running.id in cancelled:
            if slot.words[Slot.CANCEL] != running.id:
                slot.floats[Slot.CANCEL_DEADLINE] = monotonic() + node.settings.kill_grace
                slot.words[Slot.CANCEL] = running.id
            with suppress(ProcessLookupError):  # already reaped, but the slot is not yet marked dead
                os.kill(slot.pid, signal.SIGUSR1)
