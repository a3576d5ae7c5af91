"""The lease: registers the node, renews its lease, and knows whether the lease is still valid."""

import os
import socket
from math import isfinite
from time import monotonic
from typing import Any

from psycopg.types.json import Jsonb

from qworker import migrations, rights
from qworker.claims import WriteSuppressed
from qworker.db.statements import Database
from qworker.registry import NO_CTID, Heartbeat, Registry
from qworkerd import log
from qworkerd.process.proc import resident
from qworkerd.scheduler.clock import NodeClock
from qworkerd.scheduler.periodic import Periodic
from qworkerd.shared.context import NodeContext
from qworkerd.shared.header import Header, boottime
from qworkerd.shared.slots import Phase, Role, Slot

#: Interval between two renewals (seconds).
RENEW_INTERVAL = 1.0
#: Interval between two measurements of the memory of workers (seconds).
MEASURE_INTERVAL = 5.0


class Lease:
    """Keeps the node registered. The lease runs from the time at which the last confirmed renewal was sent."""

    def __init__(self, node: NodeContext, registry: Registry, version: str) -> None:
        self._node = node
        self._registry = registry
        self._version = version
        self._header = node.table.header
        #: Other nodes wait for a full lease after the last heartbeat that they have seen. This node stops this many
        #: seconds earlier.
        self._margin = min(2.0, node.settings.lease_timeout / 5)
        self._log = log.get()
        #: When to renew.
        self.clock = Periodic(RENEW_INTERVAL)
        self.node_clock = NodeClock()
        #: The idle state that the database knows; None if it is unknown and must be written again.
        self.idle: bool | None = None
        self._ctid = NO_CTID
        self._measured = Periodic(MEASURE_INTERVAL)
        #: The resident memory of each worker (MiB), by its pid.
        self._rss: dict[int, int] = {}

    @property
    def held(self) -> bool:
        """Whether the node holds a lease that can be renewed."""
        return self._header.node != 0 and not self._header.declared_dead

    def check_database(self, database: Database) -> None:
        """Raise SchemaError if a new node could not work with the schema.

        Once the node is registered, a changed schema does not stop the jobs that run.
        """
        if self._header.node == 0:
            schema = self._node.settings.schema
            migrations.check(database, schema)
            rights.check(database, schema)
            if warning := migrations.encoding_warning(database):
                self._log.warning("database.encoding", problem=warning)

    def renew(self, database: Database, released_seq: int | None) -> None:
        """Renew the lease. Register the node if it is new, or again if other nodes have declared it dead.

        All workers must have been killed before the node registers again, because other nodes have released their jobs.
        """
        if self.held:
            sent, number = boottime(), self._header.node
            ctid = self._registry.renew(database, number, self.heartbeat(released_seq))
            if ctid is None:  # the first renewal, or another statement than a renewal has moved the row
                self._ctid = self._registry.find_ctid(database, number) or NO_CTID
                ctid = self._registry.renew(database, number, self.heartbeat(released_seq))
            if ctid is None and self._registry.find_ctid(database, number) is not None:
                raise WriteSuppressed  # no other node has declared this one dead, but the lease is not renewed
            self.confirm(sent, ctid)
        elif not self._header.declared_dead:
            self._register(database)

    def heartbeat(self, released_seq: int | None) -> Heartbeat:
        """Return the contents of the next renewal; released_seq is the lowest seq released recently."""
        return Heartbeat(self._state(), released_seq, self._ctid)

    def confirm(self, sent: float, ctid: str | None) -> None:
        """Record the row's new ctid; None means that it is gone. `sent` is when the renewal was sent (`boottime`)."""
        if ctid is not None:
            self._ctid = ctid
            self._header.lease_until = sent + self._node.settings.lease_timeout - self._margin
        else:
            self._log.error("node.declared_dead", node=self._header.node, hint="other nodes have released its jobs")
            self._header.declared_dead = True
            self._header.lease_until = 0.0

    def _register(self, database: Database) -> None:
        settings, sent = self._node.settings, boottime()
        number = self._registry.register(
            database, name=f"{socket.gethostname()}:{os.getppid()}", version=self._version, queues=settings.queues,
            worker_count=settings.processes, lease_seconds=settings.lease_timeout,
            pause=self._node.kept_pause(),
        )  # fmt: skip
        self.idle = False
        # The lease is set first: the workers of a node without a lease are killed, and no worker claims before the node
        # is set.
        self._header.lease_until = sent + settings.lease_timeout - self._margin
        self._header.node = number
        self._log.info("node.registered", node=number)

    def deregister(self, database: Database) -> None:
        """Delete the node's row; none of its processes may run a job any more."""
        if self._header.node:
            self._registry.deregister(database, self._header.node)
            self._log.info("node.deregistered", node=self._header.node)
            self._header.lease_until = 0.0
            self._header.node = 0

    def _state(self) -> Jsonb:
        """Return a description of the workers for `qworker workers`."""
        workers = []
        self._measure()
        for slot in self._node.table.live(Role.WORKER):
            running = slot.current()
            entry: dict[str, Any] = {
                "worker": slot.child, "pid": slot.pid, "phase": Phase(slot.phase).name.lower(),
                "jobs_done": slot.done, "stale_writes": slot.stale,
            }  # fmt: skip
            if (rss := self._rss.get(slot.pid)) is not None:
                entry["rss_mib"] = rss
            if running is not None:
                entry |= {"job": running.id, "task": self._node.task_name(running.task), **self._times(slot)}
            workers.append(entry)
        stale = self._header.words[Header.STALE] + sum(worker["stale_writes"] for worker in workers)
        state = {
            "workers": workers, "cron": sorted(self._node.app.schedules), "stale_writes": stale,
            **self.node_clock.state(),
        }  # fmt: skip
        if (death := self._header.last_death()) is not None:
            state["last_death"] = {
                "worker": death.worker, "pid": death.pid, "cause": death.cause, "count": death.count,
                "ago": round(monotonic() - death.at, 3),
            }  # fmt: skip
        return Jsonb(state)

    def _measure(self) -> None:
        """Measure the resident memory of the workers, less often than the lease is renewed."""
        if self._measured.is_due:
            self._measured.restart()
            pids = [slot.pid for slot in self._node.table.live(Role.WORKER)]
            self._rss = {pid: rss for pid in pids if (rss := resident(pid)) is not None}

    def _times(self, slot: Slot) -> dict[str, float]:
        """Return how long the job has run and how much of its timeout is left; clocks of other machines may differ."""
        now, started = monotonic(), slot.floats[Slot.STARTED]
        left = slot.floats[Slot.DEADLINE] - self._node.settings.kill_grace - now
        if slot.words[Slot.PHASE] != Phase.RUNNING or not started:
            return {}
        return {"ran": round(now - started, 3)} | ({"left": round(left, 3)} if isfinite(left) else {})

    def has_idle_worker(self) -> bool:
        """Return whether a worker is waiting for work."""
        return any(s.words[Slot.PHASE] == Phase.IDLE for s in self._node.table.live(Role.WORKER))
