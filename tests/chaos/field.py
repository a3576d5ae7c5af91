"""Where faults strike: two nodes, one of them behind a network that breaks, and their server."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import psycopg

from qworker.migrations import migrate
from tests.chaos.clock import MovableClock
from tests.chaos.network import Namespace
from tests.chaos.tasks import TABLES
from tests.database import Database
from tests.lifecycle.cluster import Cluster
from tests.lifecycle.node import Node
from tests.lifecycle.proxy import Proxy

#: Seconds without a heartbeat after which a node is declared dead.
LEASE = 5

#: Faults of the environment shall not use up what a job may cost.
OPTIONS = (
    "--processes", "2", "--lease-timeout", str(LEASE), "--kill-grace", "1", "--max-crashes", "1000",
    "--max-node-losses", "1000",
    "--shutdown-timeout", "2", "--interrupt-timeout", "1", "--poll-interval", "0.5", "--stall-timeout", "5",
)  # fmt: skip
ENVIRONMENT = {"QWORKER_APP": "tests.chaos.tasks:app", "QWORKER_LOG_LEVEL": "info"}


@dataclass
class Field:
    """Where the faults strike: two nodes, one of them behind a network that breaks, and their server."""

    cluster: Cluster
    server: MovableClock
    proxy: Proxy
    #: Where the second node lives, if there are namespaces here.
    namespace: Namespace | None
    random: Random
    #: The first is close to the server, the second behind the network.
    nodes: list[Node]

    def start(self, side: int) -> Node:
        """Start a node on one of the sides."""
        return self.cluster.start(
            *OPTIONS, dsn=self.proxy.dsn if side else self.cluster.database.dsn,
            through=self.namespace.enter if side and self.namespace else (), **ENVIRONMENT,
        )  # fmt: skip

    def replace(self, side: int) -> Node:
        """Start a node in the place of one that ends or has ended; return the old one."""
        old, self.nodes[side] = self.nodes[side], self.start(side)
        return old

    def node(self) -> Node:
        """Return any node."""
        return self.random.choice(self.nodes)

    def process(self, role: str) -> int | None:
        """Return a process of any node; None when there is none of this role just now."""
        if role == "supervisor":
            return self.node().pid
        pids = self.node().children(role)
        return self.random.choice(pids) if pids else None


@contextmanager
def pitch(folder: Path, random: Random) -> Iterator[Field]:
    """Set everything up, and end it; notes and logs go into the folder."""
    with ExitStack() as stack:
        server = stack.enter_context(MovableClock())
        database = Database.create(server, "chaos")
        stack.callback(database.close)
        with psycopg.connect(database.dsn, autocommit=True) as connection:
            migrate(connection)
            connection.execute(TABLES)
        namespace = stack.enter_context(Namespace()) if Namespace.possible() else None
        proxy = stack.enter_context(Proxy(database.dsn, namespace.host if namespace else "127.0.0.1"))
        cluster = stack.enter_context(Cluster(database, folder))
        field = Field(cluster, server, proxy, namespace, random, [])
        field.nodes += [field.start(0), field.start(1)]
        for node in field.nodes:
            node.await_ready()
        yield field
