"""The routine maintenance: the parts of a scheduler that run at intervals only."""

from collections.abc import Callable, Iterable
from functools import partial

from qworker.db.statements import Database
from qworker.error_groups import ErrorGroups
from qworker.maintenance import Maintenance
from qworker.recovery import Recovery
from qworkerd.outcomes.reports import Reporter
from qworkerd.scheduler import sequences
from qworkerd.scheduler.checkup import CHECKUP_INTERVAL, Checkup
from qworkerd.scheduler.error_groups import ErrorCounting
from qworkerd.scheduler.gauges import Gauges
from qworkerd.scheduler.maintenance import MaintenanceTasks
from qworkerd.scheduler.repair import Repair
from qworkerd.scheduler.upkeep import CHECK_INTERVAL, DailyUpkeep
from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Slot

#: Intervals (seconds). A node with --burst ends when no work is left; jobs that only the repair releases must not delay
#: that for long.
REPAIR_INTERVAL, BURST_REPAIR_INTERVAL, SEQUENCES_INTERVAL = 60.0, 5.0, 600.0


class RoutineMaintenance:
    """Repairs rows, makes the checks of the doctor, gathers statistics, counts errors, leaves gauges."""

    def __init__(
        self,
        node: NodeContext,
        slot: Slot,
        reporter: Reporter,
        *,
        statement_timeout: float,
        nodes: Callable[[], Iterable[int]],
        wake_if_any: Callable[[int], None],
    ) -> None:
        """Take what the parts need.

        statement_timeout is the limit of the session (seconds). nodes returns the ids of the registered nodes.
        wake_if_any is called with the number of jobs that have become available.
        """
        schema = node.settings.schema
        self._node = node
        self._nodes = nodes
        self._wake_if_any = wake_if_any
        self.repair = Repair(node, Recovery(schema), Maintenance(schema), slot)
        self.checkup = Checkup(node, reporter, statement_timeout)
        self._upkeep = DailyUpkeep(node)
        self._errors = ErrorCounting(ErrorGroups(schema))
        self._gauges = Gauges(node, self.checkup.findings)

    def add_to(self, maintenance: MaintenanceTasks) -> None:
        """Add the tasks of all parts."""
        settings = self._node.settings
        repair_interval = BURST_REPAIR_INTERVAL if settings.burst else REPAIR_INTERVAL
        maintenance.add("repair", repair_interval, lambda d: self._wake_if_any(self.repair.run(d)))
        maintenance.add("sequences", SEQUENCES_INTERVAL, partial(sequences.report, schema=settings.schema))
        maintenance.add("upkeep", CHECK_INTERVAL, self._on_one_node(self._upkeep.run), deferred=True)
        if not settings.burst:
            maintenance.add("doctor", CHECKUP_INTERVAL, self._on_one_node(self.checkup.run), deferred=True)
        self._errors.add_to(maintenance)
        if settings.metrics_port is not None:
            self._gauges.add_to(maintenance)

    def _on_one_node(self, run: Callable[[Database, Iterable[int]], object]) -> Callable[[Database], object]:
        """Return a task that learns of the registered nodes, because one of them does it for all."""
        return lambda database: run(database, self._nodes())
