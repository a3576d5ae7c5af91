"""Starts a node: the steps before the first fork."""

import gc
import threading
from collections.abc import Callable
from functools import partial

from qworker import App
from qworker.errors import ConfigurationError
from qworkerd import log
from qworkerd.config.settings import Settings
from qworkerd.inheritance.inherited import Inheritance
from qworkerd.log.job_lines import job_lines
from qworkerd.log.redaction import register_secret
from qworkerd.outcomes.record import set_release
from qworkerd.process import application_metrics
from qworkerd.shared.budget import Budget
from qworkerd.shared.context import NodeContext
from qworkerd.shared.counters import Counters
from qworkerd.shared.paused import PausedQueues
from qworkerd.shared.slots import Role, Slot, SlotTable
from qworkerd.shared.tally import Tally
from qworkerd.shared.watermarks import Watermarks


def make_node(app: App, settings: Settings) -> NodeContext:
    """Create the context that the processes of a node share, with slots for dead children besides the live ones."""
    if settings.direct_dsn:
        register_secret(settings.direct_dsn)
    set_release(settings.release)
    job_lines.enabled = settings.job_logs != "off"
    table = SlotTable(2 * (settings.processes + 1) + 9)
    return NodeContext(
        app=app,
        settings=settings,
        source=app.dsn or settings.dsn,
        table=table,
        budget=Budget(table.header, settings.max_jobs),
        watermarks=Watermarks(table, settings.queues, app.priorities),
        paused=PausedQueues(settings.queues, app.priorities),
        tally=Tally(settings.processes + 2),
        counters=Counters(settings.processes + 3),
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
    count_in(node, settings.processes + 1)
    inheritance = inheritance or Inheritance()

    def begin(main: Callable[[NodeContext, Slot], int], slot: Slot) -> int:
        count_in(node, {Role.SCHEDULER: 0, Role.EXPORTER: settings.processes + 2}.get(Role(slot.role), slot.child))
        inheritance.disconnect()
        application_metrics.set_seat(f"{Role(slot.role).name.lower()}-{slot.child}")
        return main(node, slot)

    mains = {Role.SCHEDULER: partial(begin, schedule), Role.WORKER: partial(begin, work)}
    if settings.metrics_port is not None:
        try:
            from qworkerd.exporter.loop import main as export
        except ImportError as error:
            raise ConfigurationError(
                f"metrics_port needs the package prometheus-client ({error}): pip install 'pgqworker[metrics]'"
            ) from error
        mains[Role.EXPORTER] = partial(begin, export)
    # Existing objects are shared with all children. Excluded from garbage collection, their pages are not copied.
    gc.freeze()
    return Supervisor(node, mains, Notifier()).run()


def count_in(node: NodeContext, seat: int) -> None:
    """Let this process count its log events and more, in the region of its seat."""
    node.counters.bind(seat)
    log.count_events(lambda level, event: node.counters.add(f"{level} {event}"))


def warn_of_threads() -> None:
    """Warn about threads that the application has started: only the locks that they hold exist in the workers."""
    names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if names:
        log.get().warning("app.threads", threads=names, hint="started at import; they do not exist in the workers")
