"""The statements by which a node keeps itself registered and learns what there is to do."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from psycopg.types.json import Jsonb

from qworker.claims import WriteSuppressed
from qworker.db.arrays import integer_array, text_array
from qworker.db.statements import DEFAULT_SCHEMA, Database, Statements
from qworker.status import Pause

#: A ctid that no row has.
NO_CTID = "(0,0)"

#: The entry among the writers for prepared transactions.
PREPARED = "prepared"


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The values that a node writes when it renews its lease."""

    #: The state of its workers, for monitoring.
    state: Jsonb
    #: The lowest seq that it has released recently.
    released_seq: int | None = None
    #: The ctid of its row in the table node, from the last renewal or `Registry.find_ctid`.
    ctid: str = NO_CTID


class NodeLease(NamedTuple):
    """What another node's row says of its lease."""

    #: The counter that the node increments with each renewal.
    heartbeat: int
    lease_seconds: float


@dataclass(frozen=True, slots=True)
class PollResult:
    """The result of one poll."""

    #: The new ctid of this node's row if the lease was renewed. None if the renewal was not requested, the ctid was
    #: outdated, or another node has declared this node dead.
    ctid: str | None
    #: The heartbeats and leases of the other nodes, by id.
    heartbeats: dict[int, NodeLease]
    #: The lowest seq that another node has released recently.
    released_seq: int | None
    #: The seq of the first available job after the watermark of each lane.
    first_available: list[int | None]
    #: The last seq that was assigned.
    last_seq: int
    #: The transactions that write to the table job; read if `with_writers` is set.
    writers: list[str]
    #: Seconds until the next job is due; None if no job is scheduled.
    due_in: float | None
    #: The jobs of this node whose cancellation is requested.
    cancels: list[int]
    #: The jobs of this node whose stacks are requested.
    stacks: list[int]
    #: The running jobs of this node whose log lines are followed.
    followed: list[int]
    #: Whether jobs of this node are running according to the database.
    has_running: bool
    #: Dead nodes to which running jobs belong; read if `thorough` is set.
    dead_nodes: list[int]
    #: Whether expired or cancelled jobs have to be ended; read if `thorough` is set.
    expired: bool
    #: The paused queues among those of the node; None if they could not be read.
    paused: list[str] | None
    #: Whether the node is paused; None if it is not registered, or if it could not be read.
    node_paused: bool | None
    #: Whether an operation waits for its next slice.
    operations: bool
    #: The database's clock (seconds since 1970), and the duration of the statement without its commit (seconds).
    at: float
    duration: float

    @property
    def renewed(self) -> bool:
        """Whether the lease was renewed."""
        return self.ctid is not None

    def waiting(self, paused: Collection[int] = ()) -> bool:
        """Whether a job could be claimed; no job can be claimed from the paused lanes."""
        return any(seq is not None and lane not in paused for lane, seq in enumerate(self.first_available))


class Registry(Statements):
    """A node's own statements; each method is one statement and one commit."""

    __slots__ = ()

    def __init__(self, schema: str = DEFAULT_SCHEMA) -> None:
        super().__init__("registry", schema)

    def register(
        self,
        database: Database,
        *,
        name: str,
        version: str,
        queues: Sequence[str],
        worker_count: int,
        lease_seconds: float,
        pause: Pause | None = None,
    ) -> int:
        """Register a node; return its new id. Raises WriteSuppressed if a trigger suppresses its row.

        pause: that of the node before it was declared dead.
        """
        node = self._number(
            database, "register", name=name, version=version, queues=list(queues), worker_count=worker_count,
            lease_seconds=lease_seconds, paused_at=pause and pause.at.timestamp(), paused_by=pause and pause.by,
            pause_reason=pause and pause.reason,
        )  # fmt: skip
        if node is None:
            raise WriteSuppressed
        return node

    def renew(self, database: Database, node: int, heartbeat: Heartbeat) -> str | None:
        """Renew the lease of a node whose row is at `heartbeat.ctid`.

        Returns the new ctid. None means that the ctid is outdated or another node has declared the node dead;
        `find_ctid` distinguishes the two.
        """
        ctid: str | None = self._scalar(
            database,
            "renew",
            node=node,
            ctid=heartbeat.ctid,
            state=heartbeat.state,
            released_seq=heartbeat.released_seq,
        )
        return ctid

    def find_ctid(self, database: Database, node: int) -> str | None:
        """Return the ctid of a node's row; None if another node has declared it dead."""
        ctid: str | None = self._scalar(database, "find_ctid", node=node)
        return ctid

    def set_idle(self, database: Database, node: int, *, idle: bool, paused: Iterable[str] = ()) -> None:
        """Set whether enqueueing, except into paused queues, has to wake this node."""
        if idle:
            self._count(database, "mark_idle", node=node, paused=list(paused))
        else:
            self._count(database, "mark_busy", node=node)

    def listen(self, database: Database) -> None:
        """Receive a notification for jobs enqueued while the node is idle."""
        database.execute(self._sql["listen"])

    def deregister(self, database: Database, node: int) -> None:
        """Delete the node's row, after all of its processes have ended."""
        self._count(database, "deregister", node=node)

    def poll(
        self,
        database: Database,
        node: int,
        *,
        queues: Sequence[str],
        priorities: Sequence[int],
        watermarks: Sequence[int],
        scrub: tuple[int, int] = (0, 0),
        due_from: float = 0.0,
        since: float = 0.0,
        with_writers: bool = False,
        thorough: bool = False,
        heartbeat: Heartbeat | None = None,
    ) -> PollResult:
        """Return the work after the watermarks, one watermark for each lane (queue and priority).

        scrub: also search for jobs with a seq above the first number up to the second. heartbeat: also renew the lease,
        as `renew` does.
        """
        renewal = heartbeat or Heartbeat(Jsonb({}))  # matches no row
        (result,) = self._records(
            database, "poll", _poll_result, node=node, queues=text_array(queues), priorities=integer_array(priorities),
            watermarks=integer_array(watermarks), scrub_from=scrub[0], scrub_to=scrub[1], due_from=due_from,
            since=since, with_writers=with_writers, thorough=thorough, ctid=renewal.ctid, state=renewal.state,
            released_seq=renewal.released_seq,
        )  # fmt: skip
        return result

    # Parts of a poll, for when it fails as a whole

    def heartbeats(self, database: Database, node: int) -> dict[int, NodeLease]:
        """Return the heartbeats and leases of the other nodes, by id."""
        rows = self._rows(database, "heartbeats", node=node)
        return {other: NodeLease(heartbeat, lease_seconds) for other, heartbeat, lease_seconds in rows}

    def cancels(self, database: Database, node: int) -> list[int]:
        """Return the jobs of this node whose cancellation is requested."""
        return self._column(database, "cancels", node=node)

    def dead_nodes(self, database: Database) -> list[int]:
        """Return the dead nodes to which running jobs belong."""
        return self._column(database, "dead_nodes")

    def unfinished(
        self, database: Database, queues: Sequence[str], priorities: range, paused: Iterable[str] = ()
    ) -> bool:
        """Return whether these queues hold work at these priorities; in the paused ones only running jobs count."""
        lanes = {"queues": list(queues), "first": priorities[0], "last": priorities[-1], "paused": list(paused)}
        return bool(self._scalar(database, "unfinished", **lanes))


def _poll_result(*, heartbeats: dict[str, dict[str, Any]], **columns: Any) -> PollResult:
    return PollResult(heartbeats={int(node): NodeLease(**values) for node, values in heartbeats.items()}, **columns)
