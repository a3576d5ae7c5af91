"""The heartbeats of the nodes of a host, for probes."""

from dataclasses import dataclass

from qworker.db.statements import DEFAULT_SCHEMA, Database, Statements


@dataclass(frozen=True, slots=True)
class NodeHeartbeat:
    """When a node was last heard of."""

    #: Host and process id.
    name: str
    #: Seconds since its last heartbeat, by the database's clock.
    silence: float
    #: Seconds without a heartbeat after which other nodes may declare it dead.
    lease: float

    @property
    def alive(self) -> bool:
        """Whether its lease is still valid."""
        return self.silence < self.lease


class Heartbeats(Statements):
    """The statement that reads heartbeats."""

    __slots__ = ()

    def __init__(self, schema: str = DEFAULT_SCHEMA) -> None:
        super().__init__("heartbeats", schema)

    def find(self, database: Database, name: str) -> list[NodeHeartbeat]:
        """Return the nodes of a host, or the node of a name, the newest heartbeat first."""
        return self._records(database, "of_host", NodeHeartbeat, name=name)
