"""Monitors the heartbeats of the other nodes, and releases the jobs of dead nodes."""

import json
from collections.abc import Iterable, Mapping
from functools import partial
from typing import NamedTuple

import psycopg

from qworker.db.statements import Database
from qworker.job import JobState
from qworker.recovery import LostJob, Recovery
from qworker.registry import NodeLease
from qworkerd import log
from qworkerd.outcomes.reports import Reporter
from qworkerd.process.reconnect import is_transient
from qworkerd.scheduler.batched_write import BatchedWrite
from qworkerd.shared.cause import Cause
from qworkerd.shared.context import NodeContext
from qworkerd.shared.header import boottime
from qworkerd.shared.series import PROCESS
from qworkerd.shared.slots import Slot
from qworkerd.shared.tally import Counter, ProcessCounter, TallyWriter

#: The error of a lost job; the statement adds the time and the attempt.
NODE_LOST = {"type": "NodeLost", "cause": Cause.NODE_LOST, "message": "the node that ran this job was lost"}


class Watched(NamedTuple):
    """The heartbeat of a node, and since when this process has seen it unchanged (`boottime`)."""

    heartbeat: int
    since: float


class Rescue:
    """Declares a node dead once this process has seen its heartbeat unchanged for that node's whole lease.

    No wall clock is involved. The time is measured by this process, and starts again if it could not poll.
    """

    def __init__(
        self, node: NodeContext, recovery: Recovery, slot: Slot, reporter: Reporter, tally: TallyWriter
    ) -> None:
        self._node = node
        self._tally = tally
        self._slot = slot
        self._reporter = reporter
        self._recovery = recovery
        self._releasing = BatchedWrite("rescue")
        self._watch: dict[int, Watched] = {}
        self._log = log.get()

    def reset(self) -> None:
        """Start all measurements again: the connection was lost meanwhile."""
        self._watch.clear()

    def check_heartbeats(self, database: Database, nodes: Mapping[int, NodeLease]) -> int:
        """Process the heartbeats of the other nodes; return the number of jobs released."""
        now, dead = boottime(), []
        self._watch = {
            other: seen
            if (seen := self._watch.get(other)) and seen.heartbeat == node.heartbeat
            else Watched(node.heartbeat, now)
            for other, node in nodes.items()
        }
        for other, (heartbeat, since) in list(self._watch.items()):
            if now - since < nodes[other].lease_seconds:
                continue
            try:
                if not self._recovery.delete_dead_node(database, other, heartbeat):
                    continue
            except psycopg.Error as error:
                if database.closed:
                    raise
                self._log.error("rescue.failed", node=other, error=str(error).strip())
                if not is_transient(error):  # otherwise the next poll tries it again
                    self._watch[other] = Watched(heartbeat, now)
                continue
            self._tally.count(PROCESS, ProcessCounter.NODES_LOST)
            self._log.error("node.dead", node=other, silent_for=round(now - since, 1))
            del self._watch[other]
            dead.append(other)
        return self.rescue_nodes(database, dead)

    def rescue_node(self, database: Database, dead: int) -> int:
        """Release the jobs of a dead node; return their number."""
        total = 0
        settings, hooks = self._node.settings, self._node.hooks
        write = partial(self._recovery.rescue, database, dead, settings.max_node_losses, json.dumps(NODE_LOST), hooks)
        first = partial(self._recovery.first_lost, database, dead)
        try:
            while released := self._releasing.run(database, write, first):
                total += len(released)
                self._count(released)
                self._reporter.submit_losses(released, NODE_LOST)
        finally:
            self._node.watermarks.report_release(self._slot)
        if total:
            self._log.warning("jobs.rescued", node=dead, jobs=total)
        return total

    def _count(self, lost: Iterable[LostJob]) -> None:
        for job in lost:
            series = self._tally.numbers[job.queue, job.task]
            self._tally.count(series, Counter.NODE_LOST)
            if job.state == JobState.FAILED:
                self._tally.count(series, Counter.FAILED)

    def rescue_nodes(self, database: Database, dead: Iterable[int]) -> int:
        """Release the jobs of dead nodes; return their number. A thorough poll finds a node again if this fails."""
        released = 0
        for node in dead:
            try:
                released += self.rescue_node(database, node)
            except psycopg.Error as error:
                if database.closed:
                    raise
                self._log.error("rescue.failed", node=node, error=str(error).strip())
        return released
