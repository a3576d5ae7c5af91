"""What can happen to a cluster under fire. Each fault strikes at random, and heals by itself after a time."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from random import Random
from time import monotonic, sleep

import psycopg

from qworkerd.embedded import EmbeddedPostgres
from tests.lifecycle.cluster import Cluster
from tests.lifecycle.node import Node
from tests.lifecycle.proxy import Proxy

Heal = Callable[[], object]


@dataclass
class Field:
    """Where the faults strike: two nodes, one of them behind a network that breaks, and their server."""

    cluster: Cluster
    server: EmbeddedPostgres
    proxy: Proxy
    #: Starts a node on this side: 0 is close to the server, 1 behind the network.
    start: Callable[[int], Node]
    nodes: list[Node]
    random: Random

    def replace(self, side: int) -> Node:
        """Start a node in the place of one that ends or has ended; return the old one."""
        old, self.nodes[side] = self.nodes[side], self.start(side)
        return old

    def node(self) -> Node:
        """Return any node."""
        return self.random.choice(self.nodes)

    def process(self, role: str) -> int | None:
        """Return a process of any node; None when there is none of this role just now."""
        pids = self.node().children(role)
        return self.random.choice(pids) if pids else None


def _signal(pid: int | None, signum: signal.Signals) -> None:
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)


def _nothing() -> None:
    pass


def kill_worker(field: Field) -> Heal:
    """SIGKILL to a worker."""
    _signal(field.process("worker"), signal.SIGKILL)
    return _nothing


def crash_worker(field: Field) -> Heal:
    """SIGSEGV to a worker, which Python does not survive."""
    _signal(field.process("worker"), signal.SIGSEGV)
    return _nothing


def stop_worker(field: Field) -> Heal:
    """A worker stands still."""
    pid = field.process("worker")
    _signal(pid, signal.SIGSTOP)
    return lambda: _signal(pid, signal.SIGCONT)


def kill_scheduler(field: Field) -> Heal:
    """SIGKILL to a scheduler."""
    _signal(field.process("scheduler"), signal.SIGKILL)
    return _nothing


def stop_scheduler(field: Field) -> Heal:
    """A scheduler stands still, maybe for longer than the lease."""
    pid = field.process("scheduler")
    _signal(pid, signal.SIGSTOP)
    return lambda: _signal(pid, signal.SIGCONT)


def kill_supervisor(field: Field) -> Heal:
    """SIGKILL to a supervisor, whose node is replaced."""
    side = field.random.randrange(len(field.nodes))
    field.nodes[side].signal(signal.SIGKILL)
    field.replace(side).process.wait(10)
    return _nothing


def stop_supervisor(field: Field) -> Heal:
    """A supervisor stands still, maybe for so long that its node gives up and has to be replaced."""
    side = field.random.randrange(len(field.nodes))
    node = field.nodes[side]
    node.signal(signal.SIGSTOP)

    def heal() -> None:
        with suppress(ProcessLookupError):
            node.signal(signal.SIGCONT)

    return heal


def deploy(field: Field) -> Heal:
    """A node is told to stop while its successor starts."""
    side = field.random.randrange(len(field.nodes))
    old = field.replace(side)
    if old.process.poll() is None:
        old.signal(signal.SIGTERM)
    return _nothing


def end_sessions(field: Field) -> Heal:
    """An administrator ends all sessions, or one in three."""
    share = field.random.choice([1, 3])
    with suppress(psycopg.Error):
        field.cluster.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND pid %% %s = 0",
            share,
        )
    return _nothing


def restart_server(field: Field) -> Heal:
    """The server is shut down, and comes back."""
    field.server.stop()
    return field.server.start


def crash_server(field: Field) -> Heal:
    """The server is killed, and recovers."""
    field.server.kill()
    return field.server.start


def cut(field: Field) -> Heal:
    """All connections of one node are reset, and new ones refused."""
    field.proxy.refuse()
    return field.proxy.flow


def silence(field: Field) -> Heal:
    """Nothing gets through to one node or from it, and nobody says so."""
    field.proxy.hold()
    return field.proxy.flow


def lag(field: Field) -> Heal:
    """Everything takes longer for one node."""
    field.proxy.lag(field.random.uniform(0.001, 0.02))
    return field.proxy.flow


#: How often each strikes, and for how long at the most (seconds).
FAULTS: dict[Callable[[Field], Heal], tuple[int, float]] = {
    kill_worker: (6, 0.0),
    crash_worker: (3, 0.0),
    stop_worker: (3, 4.0),
    kill_scheduler: (3, 0.0),
    stop_scheduler: (2, 7.0),
    kill_supervisor: (2, 0.0),
    stop_supervisor: (2, 7.0),
    deploy: (2, 0.0),
    end_sessions: (2, 0.0),
    restart_server: (1, 2.0),
    crash_server: (2, 1.0),
    cut: (2, 5.0),
    silence: (2, 7.0),
    lag: (1, 5.0),
}


class Storm:
    """Lets faults strike until it is over; at the end all are healed, and every node is alive."""

    def __init__(self, field: Field) -> None:
        self.field = field
        #: What struck when, for messages.
        self.record: list[str] = []
        self._began = monotonic()
        #: When what is still broken heals.
        self._broken: dict[str, tuple[float, Heal]] = {}

    def rage(self, seconds: float) -> None:
        """Strike about once a second for so long, then make good."""
        strikes_at = now = monotonic()
        end = now + seconds
        while now < end:
            self._mend(now)
            if now >= strikes_at:
                self._strike()
                strikes_at = now + self.field.random.expovariate(1.0)
            self._revive()
            heals_at = min((moment for moment, _ in self._broken.values()), default=end)
            sleep(max(0.0, min(strikes_at, heals_at, end) - monotonic()))
            now = monotonic()
        self._mend(inf)
        self._revive()

    def _strike(self) -> None:
        weights = [often for often, _ in FAULTS.values()]
        (fault,) = self.field.random.choices([*FAULTS], weights)
        kind = "server" if "server" in fault.__name__ else "network" if fault in (cut, silence, lag) else fault.__name__
        if kind in self._broken:
            return
        lasts = self.field.random.uniform(0.0, FAULTS[fault][1])
        self.record.append(f"{monotonic() - self._began:6.2f} {fault.__name__} for {lasts:.2f} s")
        self._broken[kind] = monotonic() + lasts, fault(self.field)

    def _mend(self, until: float) -> None:
        for kind, (moment, heal) in list(self._broken.items()):
            if moment <= until:
                del self._broken[kind]
                heal()

    def _revive(self) -> None:
        """Replace nodes that have given up, as systemd would."""
        for side, node in enumerate(self.field.nodes):
            if node.process.poll() is not None:
                self.record.append(f"{monotonic() - self._began:6.2f} a node ended with {node.process.poll()}")
                self.field.replace(side)
