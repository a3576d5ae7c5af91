"""Run the scheduler's maintenance tasks at their intervals, and isolate each from the errors of the others."""

from collections.abc import Callable
from time import monotonic
from typing import Any

import psycopg

from qworkerd import log

Database = psycopg.Connection[tuple[Any, ...]]
Run = Callable[[Database], object]


class PeriodicTask:
    """A maintenance task and its interval."""

    __slots__ = ("due", "every", "name", "run")

    def __init__(self, name: str, every: float, run: Run) -> None:
        self.name = name
        self.every = every
        self.run = run
        #: When it is next due (monotonic).
        self.due = 0.0


class Periodic:
    """Runs each task when it is due."""

    def __init__(self, extend_deadline: Callable[[], None]) -> None:
        self._extend_deadline = extend_deadline
        self._tasks: list[PeriodicTask] = []
        self._log = log.get()

    def add(self, name: str, every: float, run: Run) -> None:
        """Add a task that runs every `every` seconds."""
        self._tasks.append(PeriodicTask(name, every, run))

    def run_due(self, database: Database) -> None:
        """Run the tasks that are due."""
        for task in self._tasks:
            if monotonic() >= task.due:
                task.due = monotonic() + task.every
                self.attempt(database, task.name, task.run)

    def attempt(self, database: Database, name: str, run: Run) -> None:
        """Run one task. An error is logged; only a lost connection is raised."""
        self._extend_deadline()
        try:
            run(database)
        except Exception as error:  # whatever it is, it must not stop the renewal of the lease
            if database.closed:
                raise
            unforeseen = None if isinstance(error, psycopg.Error) else error
            self._log.warning("maintenance.error", task=name, error=str(error).strip(), exc_info=unforeseen)
