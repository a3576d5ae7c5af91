"""One worker in the foreground, for debugging: no fork, so `breakpoint()` can read the terminal.

The scheduler runs in a thread. Timeouts do not end jobs, which may be stopped in a debugger.
"""

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from math import inf
from types import FrameType

from qworker import App
from qworkerd import log
from qworkerd.config.settings import Settings
from qworkerd.process import exits
from qworkerd.process.proc import start_ticks
from qworkerd.run import make_node
from qworkerd.scheduler.loop import Scheduler
from qworkerd.shared.header import Header
from qworkerd.shared.slots import Role, Slot
from qworkerd.worker.loop import Worker


def inline(app: App, settings: Settings) -> int:
    """Run until stopped, and return the exit code.

    The first Ctrl-C stops the worker after the running job, the second one interrupts the job.
    """
    node = make_node(app, replace(settings, processes=1))
    node.table.header.supervisor_seen_at = inf  # there is no supervisor
    scheduler_slot, worker_slot = node.table.slots[:2]
    for slot, role in ((scheduler_slot, Role.SCHEDULER), (worker_slot, Role.WORKER)):
        slot.assign(role, 1, inf, 0.0)
        slot.words[Slot.START_TICKS] = start_ticks(os.getpid()) or 0
        slot.words[Slot.PID] = os.getpid()
    scheduler = Scheduler(node, scheduler_slot)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    thread = threading.Thread(target=scheduler.serve, name="scheduler", daemon=True)
    thread.start()
    log.get().info("inline.started", queues=list(settings.queues), hint="press Ctrl-C to stop after the running job")
    code, stopping = exits.RECYCLE, False
    while code == exits.RECYCLE and not stopping:
        worker = Worker(node, worker_slot)
        signal.signal(signal.SIGINT, _interrupt_handler(worker))
        code = worker.run()
        stopping = worker.signals.stopping  # an interrupted worker also returns RECYCLE
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    scheduler.stop()
    thread.join(10.0)
    if settings.burst and node.table.header.words[Header.UNKNOWN_TASK] and not stopping and code == exits.OK:
        return exits.FAILURE
    return exits.OK if stopping else code


def _interrupt_handler(worker: Worker) -> Callable[[int, FrameType | None], None]:
    """Return the handler of SIGINT."""

    def on_interrupt(signum: int, frame: FrameType | None) -> None:
        signals = worker.signals
        if signals.stopping:
            worker.header.draining = True  # only a node that shuts down interrupts jobs; here, no supervisor says so
            signals.on_quit(signum, frame)
        else:
            signals.on_term(signum, frame)

    return on_interrupt
