"""The lease: what this node may rely on, and what it has to show for it."""

import os
import socket
from math import isfinite
from time import monotonic
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from qworker.nodes import NO_CTID, Heartbeat, Nodes
from qworkerd import log
from qworkerd.shared.context import NodeContext
from qworkerd.shared.header import Header, boottime
from qworkerd.shared.slots import Phase, Role, Slot

Database = psycopg.Connection[tuple[Any, ...]]


class Lease:
    """Keeps the node registered. The lease counts from when the last renewal that was confirmed was sent."""

    def __init__(self, node: NodeContext, nodes: Nodes, version: str) -> None:
        self._node = node
        self._nodes = nodes
        self._version = version
        self._header = node.table.header
        #: Others wait for a whole lease after the last beat they saw; this node stops so much earlier (seconds).
        self._margin = min(2.0, node.settings.lease_timeout / 5)
        self._log = log.get()
        #: What the database was last told; None: whatever it was, it is to be told anew.
        self.idle: bool | None = None
        self._ctid = NO_CTID

    @property
    def stands(self) -> bool:
        """Whether there is a lease to prolong."""
        return self._header.node != 0 and not self._header.declared_dead

    def renew(self, database: Database, returned: int | None) -> None:
        """Prolong the lease, or register: at first, and anew when others have declared the node dead.

        Before that, every worker must have been killed: what they run is now others'.
        """
        if self.stands:
            sent, number = boottime(), self._header.node
            place = self._nodes.renew(database, number, self.heartbeat(returned))
            if place is None:  # the table was written anew, or it is the first time
                self._ctid = self._nodes.find_ctid(database, number) or NO_CTID
                place = self._nodes.renew(database, number, self.heartbeat(returned))
            self.confirm(sent, place)
        elif not self._header.declared_dead:
            self._register(database)

    def heartbeat(self, returned: int | None) -> Heartbeat:
        """Return what to say with the next renewal; returned: the lowest place handed back lately."""
        return Heartbeat(self._state(), returned, self._ctid)

    def confirm(self, sent: float, place: str | None) -> None:
        """Take in where the renewed row stands; None: it is gone. `sent` is when that was asked for (`boottime`)."""
        if place is not None:
            self._ctid = place
            self._header.lease_until = sent + self._node.settings.lease_timeout - self._margin
        else:
            self._log.error("node.declared_dead", node=self._header.node, hint="its jobs were taken by others")
            self._header.declared_dead = True
            self._header.lease_until = 0.0

    def _register(self, database: Database) -> None:
        settings, sent = self._node.settings, boottime()
        number = self._nodes.register(
            database, name=f"{socket.gethostname()}:{os.getppid()}", version=self._version, queues=settings.queues,
            processes=settings.processes, lease=settings.lease_timeout,
        )  # fmt: skip
        self.idle = False
        # The lease first: a node without one has its workers killed, and no worker claims before there is a node.
        self._header.lease_until = sent + settings.lease_timeout - self._margin
        self._header.node = number
        self._log.info("node.registered", node=number)

    def deregister(self, database: Database) -> None:
        """Strike the node off; nothing of it may run any more."""
        if self._header.node:
            self._nodes.deregister(database, self._header.node)
            self._log.info("node.deregistered", node=self._header.node)
            self._header.lease_until = 0.0
            self._header.node = 0

    def _state(self) -> Jsonb:
        """Describe the workers, for people."""
        workers = []
        for slot in self._node.table.live(Role.WORKER):
            running = slot.current()
            entry: dict[str, Any] = {
                "worker": slot.child, "pid": slot.pid, "phase": Phase(slot.phase).name.lower(),
                "jobs_done": slot.done, "stale_writes": slot.stale,
            }  # fmt: skip
            if running is not None:
                entry |= {"job": running.id, "task": self._node.task_name(running.task), **self._times(slot)}
            workers.append(entry)
        stale = self._header.words[Header.STALE] + sum(worker["stale_writes"] for worker in workers)
        return Jsonb({"workers": workers, "cron": sorted(self._node.app.schedules), "stale_writes": stale})

    def _times(self, slot: Slot) -> dict[str, float]:
        """Return how long a worker has run its job and what is left of its timeout: the database's clock differs."""
        now, started = monotonic(), slot.floats[Slot.STARTED]
        left = slot.floats[Slot.DEADLINE] - self._node.settings.kill_grace - now
        if slot.words[Slot.PHASE] != Phase.RUNNING or not started:
            return {}
        return {"ran": round(now - started, 3)} | ({"left": round(left, 3)} if isfinite(left) else {})

    def any_idle(self) -> bool:
        """Tell whether some worker waits for work."""
        return any(s.words[Slot.PHASE] == Phase.IDLE for s in self._node.table.live(Role.WORKER))
