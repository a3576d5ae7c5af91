"""Starts a node: the steps before the first fork."""

import gc
import threading
from collections.abc import Callable
from functools import partial

from qworker import App
from qworkerd import log
from qworkerd.config.settings import Settings
from qworkerd.inheritance.inherited import Inheritance
from qworkerd.log.redaction import register_secret
from qworkerd.shared.budget import Budget
from qworkerd.shared.context import NodeContext
from qworkerd.shared.paused import PausedQueues
from qworkerd.shared.slots import Role, Slot, SlotTable
from qworkerd.shared.watermarks import Watermarks


def make_node(app: App, settings: Settings) -> NodeContext:
    """Create the context that the processes of a node share, with slots for dead children besides the live ones."""
    if settings.direct_dsn:
        register_secret(settings.direct_dsn)
    table = SlotTable(2 * (settings.processes + 1) + 8)
    return NodeContext(
        app=app,
        settings=settings,
        source=app.dsn or settings.dsn,
        table=table,
        budget=Budget(table.header, settings.max_jobs),
        watermarks=Watermarks(table, settings.queues, app.priorities),
        paused=PausedQueues(settings.queues, app.priorities),
        tasks=tuple(sorted(app.tasks)),
    )


def serve(app: App, settings: Settings, inheritance: Inheritance | None = None) -> int:
    """Run a node until it is stopped; return the exit code."""
    from qworkerd.scheduler.loop import main as schedule
    from qworkerd.supervisor.loop import Supervisor
    from qworkerd.supervisor.systemd import Notifier
    from qworkerd.worker.loop import main as work

    log.bind_process(role="supervisor")
    warn_of_threads()
    node = make_node(app, settings)
    inheritance = inheritance or Inheritance()

    def begin(main: Callable[[NodeContext, Slot], int], slot: Slot) -> int:
        inheritance.disconnect()
        return main(node, slot)

    mains = {Role.SCHEDULER: partial(begin, schedule), Role.WORKER: partial(begin, work)}
    # Existing objects are shared with all children. Excluded from garbage collection, their pages are not copied.
    gc.freeze()
    return Supervisor(node, mains, Notifier()).run()


def warn_of_threads() -> None:
    """Warn about threads that the application has started: only the locks that they hold exist in the workers."""
    names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if names:
        log.get().warning("app.threads", threads=names, hint="started at import; they do not exist in the workers")
