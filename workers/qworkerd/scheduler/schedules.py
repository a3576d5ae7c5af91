"""Enqueues the ticks of schedules, each exactly once, whatever the number of schedulers."""

from typing import Any

import psycopg

from qworker.db.statements import Database
from qworker.schedules import StoredSchedules, tick_of
from qworker.spec import JobSpec
from qworker.task import Task
from qworkerd import log
from qworkerd.scheduler.maintenance import MaintenanceTasks
from qworkerd.scheduler.periodic import Periodic
from qworkerd.shared.context import NodeContext

#: Interval at which a node whose declaration was replaced checks whether the newer node is still alive (seconds).
REDECLARE_INTERVAL = 60.0
#: Interval at which a tick is retried while an open transaction holds its unique key (seconds).
RETRY_LOCKED_KEY = 1.0
#: Time after which a declaration or a tick is tried again after an error of the database (seconds).
RETRY_AFTER_ERROR = 5.0
#: Interval at which unused schedules are deleted (seconds).
RETENTION_INTERVAL = 600.0


class Schedules:
    """Computes ticks from the database's clock. The schedule's row decides which node enqueues a tick."""

    def __init__(self, node: NodeContext, stored: StoredSchedules) -> None:
        self._node = node
        self._stored = stored
        self._schedules = node.app.schedules
        #: The job of each schedule, the same as the task's own enqueue would make, and its unique key.
        self._specs = {name: _tick_of(node.app.tasks[schedule.task]) for name, schedule in self._schedules.items()}
        self._declared_for = 0
        self._undeclared: set[str] = set()
        self._declaration = Periodic(RETRY_AFTER_ERROR)
        self._log = log.get()
        #: When the next tick is due (seconds since 1970, the database's clock); infinite without schedules.
        self.due_at = 0.0 if self._schedules else float("inf")

    def add_to(self, maintenance: MaintenanceTasks) -> None:
        """Add the task that deletes unused schedules."""
        maintenance.add("schedules", RETENTION_INTERVAL, self._stored.delete_unused)

    def declare(self, database: Database) -> None:
        """Declare this release's schedules, once per registration of the node, and again if their rows are missing."""
        number = self._node.table.header.node
        if self._declared_for != number:
            self._declared_for, self._undeclared = number, set(self._schedules)
            self._declaration.hasten()
        if not (self._undeclared and self._declaration.is_due):
            return
        self._declaration.restart()
        for name in sorted(self._undeclared):
            schedule = self._schedules[name]
            try:
                self._stored.declare(
                    database, number, name=name, task=schedule.task, expression=schedule.expression,
                    timezone=schedule.timezone,
                )  # fmt: skip
                self._undeclared.discard(name)
            except psycopg.Error as error:
                self._log_error(database, name, error)

    def _log_error(self, database: Database, name: str, error: Exception) -> None:
        """Log the error of one schedule and continue with the others. Only a lost connection is raised."""
        if database.closed:
            raise error
        unforeseen = None if isinstance(error, psycopg.Error) else error
        self._log.error("cron.error", schedule=name, error=str(error).strip(), exc_info=unforeseen)

    def enqueue(self, database: Database) -> int:
        """Enqueue the ticks that are due; return the number of jobs that this node has enqueued."""
        self.declare(database)
        enqueued, next_ticks, missing = 0, [], set(self._schedules)
        for stored in self._stored.find(database, list(self._schedules)):
            name, at = stored.name, stored.at
            missing.discard(name)
            schedule = self._schedules[name]
            if (schedule.expression, schedule.timezone) != (stored.expression, stored.timezone):
                # A newer release has declared it differently. When none of its nodes is left, this node must take over.
                self._declared_for = 0
                next_ticks.append(at + REDECLARE_INTERVAL)
                continue
            try:
                due = () if stored.paused else schedule.due(stored.last_tick, at)
                enqueued += sum(self._tick(database, name, tick) for tick in due)
            except psycopg.errors.LockNotAvailable:
                # A transaction that has not committed holds the unique key. The tick is enqueued or skipped when it
                # ends.
                next_ticks.append(at + RETRY_LOCKED_KEY)
                continue
            except psycopg.Error as error:
                self._log_error(database, name, error)
                next_ticks.append(at + RETRY_AFTER_ERROR)
                continue
            except Exception as error:  # noqa: BLE001 - a row that cannot be evaluated affects one schedule only
                self._log_error(database, name, error)
            if (upcoming := schedule.next(at)) is not None:
                next_ticks.append(upcoming)
        # A schedule without a row could not be declared, or its row was deleted.
        self._undeclared |= missing
        self.due_at = 0.0 if self._undeclared else min(next_ticks, default=float("inf"))
        return enqueued

    def _tick(self, database: Database, name: str, tick: float) -> bool:
        schedule = self._schedules[name]
        spec, key = self._specs[name]
        enqueued = self._stored.tick(
            database, spec, key, name=name, tick=tick, expression=schedule.expression, timezone=schedule.timezone
        )
        if enqueued is None:
            return False
        if enqueued.job is None:
            self._log.info(
                "cron.skipped", schedule=name, task=spec.task, tick=tick, unique=key, holder=enqueued.holder,
                hint="a job of an earlier tick or of another caller holds the task's unique key",
            )  # fmt: skip
            return False
        self._log.info("cron.enqueued", schedule=name, task=spec.task, tick=tick, job=enqueued.job)
        return True


def _tick_of(task: Task[..., Any]) -> tuple[JobSpec, str | None]:
    return tick_of(task.name, task.defaults)
