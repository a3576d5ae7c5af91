"""Enqueue the ticks of the schedules, each exactly once however many schedulers run."""

from typing import Any

import psycopg

from qworker.nodes import Nodes
from qworkerd import log
from qworkerd.node import Node

Database = psycopg.Connection[tuple[Any, ...]]

#: How often a node that was outvoted by a newer one asks whether that still lives (seconds).
AGAIN = 60.0


class Cron:
    """Computes ticks from the database's clock; the row of the schedule decides who enqueues one."""

    def __init__(self, node: Node, nodes: Nodes) -> None:
        self._node = node
        self._nodes = nodes
        self._schedules = node.app.schedules
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
            self._nodes.declare_cron(
                database, number, name=schedule.name, task=schedule.task, expression=schedule.expression,
                timezone=schedule.timezone,
            )  # fmt: skip
        self._declared_for = number

    def enqueue(self, database: Database) -> int:
        """Enqueue what is due; return how many ticks this node has won."""
        self.declare(database)
        won, next_ticks = 0, []
        for name, _task, expression, timezone, last, at in self._nodes.schedules(database, list(self._schedules)):
            schedule = self._schedules[name]
            if (schedule.expression, schedule.timezone) != (expression, timezone):
                # A newer release has declared it otherwise; should its nodes go, nobody else would tick.
                self._declared_for = 0
                next_ticks.append(at + AGAIN)
                continue
            won += sum(self._won(database, name, tick) for tick in schedule.due(last, at))
            if (upcoming := schedule.next(at)) is not None:
                next_ticks.append(upcoming)
        self.due_at = min(next_ticks, default=float("inf"))
        return won

    def _won(self, database: Database, name: str, tick: float) -> bool:
        schedule = self._schedules[name]
        task = self._node.app.tasks[schedule.task]
        won = self._nodes.tick(
            database, name=name, tick=tick, expression=schedule.expression, timezone=schedule.timezone,
            queue=task.queue, task=task.name, priority=task.priority,
        )  # fmt: skip
        if won:
            self._log.info("cron.enqueued", schedule=name, task=task.name, tick=tick)
        return won
