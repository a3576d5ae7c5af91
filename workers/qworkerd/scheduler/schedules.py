"""Enqueue the ticks of the schedules, each exactly once however many schedulers run."""

from typing import Any

import psycopg

from qworker.enqueue import fingerprint
from qworker.nodes import Nodes
from qworker.options import Options
from qworker.spec import JobSpec
from qworker.task import Task
from qworkerd import log
from qworkerd.shared.context import NodeContext

Database = psycopg.Connection[tuple[Any, ...]]

#: How often a node that was outvoted by a newer one asks whether that still lives (seconds).
REDECLARE_EVERY = 60.0
#: How often a tick is tried again whose unique key an open transaction holds (seconds).
UNDECIDED = 1.0


class Schedules:
    """Computes ticks from the database's clock; the row of the schedule decides who enqueues one."""

    def __init__(self, node: NodeContext, nodes: Nodes) -> None:
        self._node = node
        self._nodes = nodes
        self._schedules = node.app.schedules
        #: What each makes: a job as the task's own enqueue would, and its unique key.
        self._orders = {name: _order(node.app.tasks[schedule.task]) for name, schedule in self._schedules.items()}
        self._declared_for = 0
        self._log = log.get()
        #: When the next tick is due (seconds since 1970, the database's clock); infinite without schedules.
        self.due_at = 0.0 if self._schedules else float("inf")

    def declare(self, database: Database) -> None:
        """Declare this release's schedules, once for each registration of the node."""
        number = self._node.table.header.node
        if self._declared_for == number:
            return
        for schedule in self._schedules.values():
            try:
                self._nodes.declare_cron(
                    database, number, name=schedule.name, task=schedule.task, expression=schedule.expression,
                    timezone=schedule.timezone,
                )  # fmt: skip
            except psycopg.Error as error:
                self._note(database, schedule.name, error)
        self._declared_for = number

    def _note(self, database: Database, name: str, error: Exception) -> None:
        """Log what has gone wrong with one schedule: the others go on. Only a lost connection is passed on."""
        if database.closed:
            raise error
        unforeseen = None if isinstance(error, psycopg.Error) else error
        self._log.error("cron.error", schedule=name, error=str(error).strip(), exc_info=unforeseen)

    def enqueue(self, database: Database) -> int:
        """Enqueue what is due; return how many jobs this node has made."""
        self.declare(database)
        made, next_ticks = 0, []
        for name, _task, expression, timezone, last, at in self._nodes.schedules(database, list(self._schedules)):
            schedule = self._schedules[name]
            if (schedule.expression, schedule.timezone) != (expression, timezone):
                # A newer release has declared it otherwise; should its nodes go, nobody else would tick.
                self._declared_for = 0
                next_ticks.append(at + REDECLARE_EVERY)
                continue
            try:
                made += sum(self._tick(database, name, tick) for tick in schedule.due(last, at))
            except psycopg.errors.LockNotAvailable:
                # Somebody has enqueued the unique job, and not yet committed: once that is over, the tick is decided.
                next_ticks.append(at + UNDECIDED)
                continue
            except Exception as error:  # noqa: BLE001 - a row that cannot be reckoned with is one schedule's trouble
                self._note(database, name, error)
            if (upcoming := schedule.next(at)) is not None:
                next_ticks.append(upcoming)
        self.due_at = min(next_ticks, default=float("inf"))
        return made

    def _tick(self, database: Database, name: str, tick: float) -> bool:
        schedule = self._schedules[name]
        order, key = self._orders[name]
        won = self._nodes.tick(
            database, order, key, name=name, tick=tick, expression=schedule.expression, timezone=schedule.timezone
        )
        if won is None:
            return False
        if won.job is None:
            self._log.info(
                "cron.skipped", schedule=name, task=order.task, tick=tick, unique=key, holder=won.holder,
                hint="the job of an earlier tick, or of somebody else, holds the task's unique key",
            )  # fmt: skip
            return False
        self._log.info("cron.enqueued", schedule=name, task=order.task, tick=tick, job=won.job)
        return True


def _order(task: Task[..., Any]) -> tuple[JobSpec, str | None]:
    order = JobSpec.of(task.name, task.defaults, Options())
    return order, fingerprint({}) if order.unique is True else order.unique or None
