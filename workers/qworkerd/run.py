"""Start a node: everything that has to happen before the first fork."""

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
from qworkerd.shared.slots import Role, Slot, SlotTable
from qworkerd.shared.watermarks import Watermarks


def make_node(app: App, settings: Settings) -> NodeContext:
    """Make what the processes of a node share. There are slots for every child and for as many graves."""
    if settings.direct_dsn:
        register_secret(settings.direct_dsn)
    table = SlotTable(2 * (settings.processes + 1) + 8)
    return NodeContext(
        app=app,
        settings=settings,
        source=app.dsn or settings.dsn,
        table=table,
        budget=Budget(table.header, settings.max_jobs),
        watermarks=Watermarks(table, settings.queues),
        tasks=tuple(sorted(app.tasks)),
    )


def serve(app: App, settings: Settings, inheritance: Inheritance | None = None) -> int:
    """Supervise a node until it is told to stop; return the exit code."""
    from qworkerd.scheduler.loop import main as schedule
    from qworkerd.supervisor.loop import Supervisor
    from qworkerd.supervisor.systemd import Notifier
    from qworkerd.worker.loop import main as work

    log.bind_process(role="supervisor")
    warn_of_threads()
    node = make_node(app, settings)
    inheritance = inheritance or Inheritance()

    def begin(main: Callable[[NodeContext, Slot], int], slot: Slot) -> int:
        inheritance.cut()
        return main(node, slot)

    mains = {Role.SCHEDULER: partial(begin, schedule), Role.WORKER: partial(begin, work)}
    # What is alive now is shared with all children: kept out of their collections, its pages are never written to.
    gc.freeze()
    return Supervisor(node, mains, Notifier()).run()


def warn_of_threads() -> None:
    """Warn of threads that the application has started: workers will not have them, but may find their locks held."""
    names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if names:
        log.get().warning("app.threads", threads=names, hint="started at import; they do not exist in the workers")
