"""Runs the scheduler's maintenance tasks at their intervals, and isolates each from the errors of the others."""

from collections.abc import Callable
from time import monotonic

import psycopg

from qworker.db.statements import Database
from qworkerd import log
from qworkerd.scheduler.periodic import Periodic
from qworkerd.shared.counters import Counters

Run = Callable[[Database], object]

#: Returned by a task that stopped before all its work was done.
MORE = object()
#: When such a task is due again (seconds).
MORE_INTERVAL = 1.0
#: When a deferred task first runs after the start of the node (seconds).
DEFERMENT = 5.0
#: Durations are counted in microseconds.
MICRO = 1e6


class MaintenanceTask(Periodic):
    """A function that runs once in each interval."""

    def __init__(self, name: str, interval: float, run: Run, quiet_interval: float, *, at_end: bool) -> None:
        super().__init__(interval)
        self.name = name
        self.run = run
        #: Whether it has run, and whether a node that ends before that runs it then.
        self.has_run = False
        self.at_end = at_end
        self._quiet_interval = quiet_interval

    def is_due_in(self, *, quiet: bool) -> bool:
        """Whether it is due now, in a quiet cluster or in another one."""
        rest = self._quiet_interval - self.interval if quiet else 0.0
        return monotonic() >= self.due + rest


class MaintenanceTasks:
    """Runs each task when it is due."""

    def __init__(
        self, extend_deadline: Callable[[], None], counters: Counters, is_quiet: Callable[[], bool] = lambda: False
    ) -> None:
        """is_quiet returns whether nothing has happened in the cluster for a while."""
        self._is_quiet = is_quiet
        self._counters = counters
        self._extend_deadline = extend_deadline
        self._tasks: list[MaintenanceTask] = []
        self._log = log.get()

    def add(
        self,
        name: str,
        interval: float,
        run: Run,
        *,
        deferred: bool = False,
        quiet_interval: float | None = None,
        at_end: bool = False,
    ) -> None:
        """Add a task that runs at once and then every `interval` seconds.

        deferred: the first run is not at once, because the task would compete with the first jobs of the node.
        quiet_interval: the interval while nothing happens in the cluster. at_end: `catch_up` runs it if it has not run.
        """
        quiet = interval if quiet_interval is None else quiet_interval
        task = MaintenanceTask(name, interval, run, quiet, at_end=at_end)
        if deferred:
            task.restart(monotonic() - interval + min(interval, DEFERMENT))
        self._tasks.append(task)

    def run_due(self, database: Database) -> None:
        """Run the tasks that are due. A task that returns MORE is due again soon."""
        quiet = self._is_quiet()
        for task in self._tasks:
            if task.is_due_in(quiet=quiet):
                self._run(database, task)

    def catch_up(self, database: Database) -> None:
        """Run the tasks `at_end` that have not run: where nodes live for seconds only, none would ever run them."""
        for task in self._tasks:
            if task.at_end and not task.has_run:
                self._run(database, task)

    def _run(self, database: Database, task: MaintenanceTask) -> None:
        task.has_run = True
        result = self.attempt(database, task.name, task.run)
        task.restart()
        if result is MORE:
            task.hasten(MORE_INTERVAL)

    def attempt(self, database: Database, name: str, run: Run) -> object:
        """Run one task and return its result. An error is logged; only a lost connection is raised."""
        self._extend_deadline()
        began = monotonic()
        try:
            return run(database)
        except Exception as error:  # no error of a task may stop the renewal of the lease
            if database.closed:
                raise
            self._counters.add(f"failed {name}")
            unforeseen = None if isinstance(error, psycopg.Error) else error
            self._log.warning("maintenance.error", action=name, error=str(error).strip(), exc_info=unforeseen)
            return None
        finally:
            self._counters.add(f"ran {name}")
            self._counters.add(f"took {name}", int((monotonic() - began) * MICRO))
