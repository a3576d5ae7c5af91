"""Runs the scheduler's maintenance tasks at their intervals, and isolates each from the errors of the others."""

from collections.abc import Callable

import psycopg

from qworker.db.statements import Database
from qworkerd import log
from qworkerd.scheduler.periodic import Periodic

Run = Callable[[Database], object]

#: Returned by a task that stopped before all its work was done.
MORE = object()
#: When such a task is due again (seconds).
MORE_INTERVAL = 1.0


class MaintenanceTask(Periodic):
    """A function that runs once in each interval."""

    def __init__(self, name: str, interval: float, run: Run) -> None:
        super().__init__(interval)
        self.name = name
        self.run = run


class MaintenanceTasks:
    """Runs each task when it is due."""

    def __init__(self, extend_deadline: Callable[[], None]) -> None:
        self._extend_deadline = extend_deadline
        self._tasks: list[MaintenanceTask] = []
        self._log = log.get()

    def add(self, name: str, interval: float, run: Run) -> None:
        """Add a task that runs every `interval` seconds."""
        self._tasks.append(MaintenanceTask(name, interval, run))

    def run_due(self, database: Database) -> None:
        """Run the tasks that are due. A task that returns MORE is due again soon."""
        for task in self._tasks:
            if task.is_due:
                result = self.attempt(database, task.name, task.run)
                task.restart()
                if result is MORE:
                    task.hasten(MORE_INTERVAL)

    def attempt(self, database: Database, name: str, run: Run) -> object:
        """Run one task and return its result. An error is logged; only a lost connection is raised."""
        self._extend_deadline()
        try:
            return run(database)
        except Exception as error:  # no error of a task may stop the renewal of the lease
            if database.closed:
                raise
            unforeseen = None if isinstance(error, psycopg.Error) else error
            self._log.warning("maintenance.error", action=name, error=str(error).strip(), exc_info=unforeseen)
            return None
