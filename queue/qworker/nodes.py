"""A scheduler's statements: those that keep its node alive, and those that any node may run for the cluster."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from psycopg import Connection
from psycopg.types.json import Jsonb

from qworker.db.arrays import integer_array, text_array
from qworker.db.encoding import escape_unstorable
from qworker.db.statements import DEFAULT_SCHEMA, load
from qworker.spec import JobSpec

Database = Connection[tuple[Any, ...]]

#: A ctid that no row has.
NO_CTID = "(0,0)"

#: The entry among the writers for prepared transactions.
PREPARED = "prepared"

#: The error stored with the jobs of a lost node; the statement adds time and attempt.
NODE_LOST = {"type": "NodeLost", "cause": "node-lost", "message": "the node that ran this job was lost"}


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The values that a node writes when it renews its lease."""

    #: The state of its workers, for monitoring.
    state: Jsonb
    #: The lowest seq that it has released recently.
    released_seq: int | None = None
    #: The ctid of its row in the table node, from the last renewal or `Nodes.find_ctid`.
    ctid: str = NO_CTID


@dataclass(frozen=True, slots=True)
class PollResult:
    """The result of one poll."""

    #: The new ctid of this node's row if the lease was renewed. None if the renewal was not requested, the ctid was
    #: outdated, or another node has declared this node dead.
    ctid: str | None
    #: The heartbeats and leases (seconds) of the other nodes, by id.
    heartbeats: dict[int, tuple[int, float]]
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
    #: Whether jobs of this node are running according to the database.
    has_running: bool
    #: Dead nodes to which running jobs belong; read if `sweep` is set.
    dead_nodes: list[int]
    #: Whether expired or cancelled jobs have to be ended; read if `sweep` is set.
    expired: bool
    #: The database's clock (seconds since 1970), and the duration of the statement without its commit (seconds).
    at: float
    took: float

    @property
    def renewed(self) -> bool:
        """Whether the lease was renewed."""
        return self.ctid is not None

    @property
    def waiting(self) -> bool:
        """Whether a job could be claimed."""
        return any(seq is not None for seq in self.first_available)


class LostJob(NamedTuple):
    """A job whose node was lost, after it was released; its attempt is no longer counted."""

    id: int
    task: str
    queue: str
    attempt: int
    state: str


@dataclass(frozen=True, slots=True)
class HeldJob:
    """A job that still belongs to a claim, with the values that decide its outcome."""

    id: int
    task: str
    queue: str
    attempt: int
    crashes: int
    flags: int
    overrides: str | None
    #: Whether its cancellation is requested.
    cancelled: bool


@dataclass(frozen=True, slots=True)
class Tick:
    """A tick that this node has enqueued or recorded."""

    #: The job; None if no job was stored because another one holds its unique key.
    job: int | None
    #: The job that holds the key, if known.
    holder: int | None


class Nodes:
    """The statements for one schema; each method takes the connection to use and is one statement and one commit."""

    __slots__ = ("_sql",)

    def __init__(self, schema: str = DEFAULT_SCHEMA) -> None:
        self._sql = load("nodes", schema)

    def _rows(self, database: Database, statement: str, /, **parameters: Any) -> list[tuple[Any, ...]]:
        return database.execute(self._sql[statement], parameters).fetchall()

    def _one(self, database: Database, statement: str, /, **parameters: Any) -> int | None:
        rows = self._rows(database, statement, **parameters)
        return rows[0][0] if rows else None

    def _count(self, database: Database, statement: str, /, **parameters: Any) -> int:
        return database.execute(self._sql[statement], parameters).rowcount

    # The node itself

    def register(
        self, database: Database, *, name: str, version: str, queues: Sequence[str], processes: int, lease: float
    ) -> int:
        """Register a new node; return its id."""
        rows = self._rows(
            database, "register", name=name, version=version, queues=list(queues), processes=processes, lease=lease
        )
        return int(rows[0][0])

    def renew(self, database: Database, node: int, heartbeat: Heartbeat) -> str | None:
        """Renew the lease of a node whose row is at `heartbeat.ctid`.

        Returns the new ctid. None means that the ctid is outdated or another node has declared the node dead;
        `find_ctid` tells which.
        """
        rows = self._rows(
            database, "renew", node=node, ctid=heartbeat.ctid, state=heartbeat.state, returned=heartbeat.released_seq
        )
        return rows[0][0] if rows else None

    def find_ctid(self, database: Database, node: int) -> str | None:
        """Return the ctid of a node's row; None if another node has declared it dead."""
        rows = self._rows(database, "find_ctid", node=node)
        return rows[0][0] if rows else None

    def set_idle(self, database: Database, node: int, *, idle: bool) -> None:
        """Set whether enqueueing has to wake this node."""
        self._count(database, "mark_idle" if idle else "mark_busy", node=node)

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
        sweep: bool = False,
        heartbeat: Heartbeat | None = None,
    ) -> PollResult:
        """Return the work after the watermarks, one watermark for each lane (queue and priority).

        scrub: also search for jobs with a seq above the first number up to the second. heartbeat: also renew the lease,
        as `renew` does.
        """
        renewal = heartbeat or Heartbeat(Jsonb({}))  # matches no row
        (row,) = self._rows(
            database, "poll", node=node, queues=text_array(queues), priorities=integer_array(priorities),
            watermarks=integer_array(watermarks), scrub_from=scrub[0], scrub_to=scrub[1], due_from=due_from,
            since=since, with_writers=with_writers, sweep=sweep, ctid=renewal.ctid, state=renewal.state,
            returned=renewal.released_seq,
        )  # fmt: skip
        ctid, heartbeats, *rest = row
        return PollResult(ctid, {int(key): (number, lease) for key, (number, lease) in heartbeats.items()}, *rest)

    # Parts of a poll, for when it fails as a whole

    def heartbeats(self, database: Database, node: int) -> dict[int, tuple[int, float]]:
        """Return the heartbeats and leases (seconds) of the other nodes, by id."""
        return {other: (heartbeat, lease) for other, heartbeat, lease in self._rows(database, "heartbeats", node=node)}

    def cancels(self, database: Database, node: int) -> list[int]:
        """Return the jobs of this node whose cancellation is requested."""
        return [row[0] for row in self._rows(database, "cancels", node=node)]

    def dead_nodes(self, database: Database) -> list[int]:
        """Return the dead nodes to which running jobs belong."""
        return [row[0] for row in self._rows(database, "dead_nodes")]

    def unfinished(self, database: Database, queues: Sequence[str]) -> bool:
        """Return whether these queues hold work."""
        return bool(self._rows(database, "unfinished", queues=list(queues))[0][0])

    # Dead workers

    def claim_jobs(self, database: Database, node: int, token: int) -> list[HeldJob]:
        """Return the jobs that still belong to a claim."""
        return [HeldJob(*row) for row in self._rows(database, "claim_jobs", node=node, token=token)]

    def record_crash(self, database: Database, token: int, job: int, *, delay: float, error: str) -> bool:
        """Count a crash and make the job available again after `delay` seconds."""
        error = escape_unstorable(database, error)
        return bool(self._rows(database, "record_crash", id=job, token=token, delay=delay, error=error))

    def record_node_loss(
        self, database: Database, token: int, job: int, max_losses: int, error: str, hooks: Iterable[str] = ()
    ) -> list[LostJob]:
        """Release the job that ran when its node had to stop; return it if it still belonged to the claim.

        After `max_losses` losses the job fails. hooks are the tasks that have a failure hook.
        """
        return self._record_node_loss(database, max_losses, error, hooks, job=job, token=token)

    def end_sessions(self, database: Database, tag: str) -> int:
        """Terminate the sessions of a dead process; return their number."""
        return len(self._rows(database, "end_sessions", tag=tag))

    def release_claim(self, database: Database, node: int, token: int, excluded: Iterable[int] = ()) -> int:
        """Release the jobs of a claim except `excluded`, without counting the attempts; return their number."""
        return len(self._rows(database, "release_claim", node=node, token=token, spared=integer_array(excluded)))

    def running(self, database: Database, node: int, since: float) -> list[tuple[int, int, float]]:
        """Return (job, token, claimed_at) of the node's running jobs that were claimed after `since`."""
        return [(job, token, at) for job, token, at in self._rows(database, "running", node=node, since=since)]

    # The whole cluster

    def promote(
        self, database: Database, due_from: float, at: float | None = None, *, limit: int = 1000,
        spared: Iterable[int] = (),
    ) -> list[str]:  # fmt: skip
        """Make due jobs available; return their queues."""
        rows = self._rows(database, "promote", due_from=due_from, at=at, limit=limit, spared=integer_array(spared))
        return [row[0] for row in rows]

    def first_due(self, database: Database, due_from: float, spared: Iterable[int] = ()) -> int | None:
        """Return the job that `promote` would update first."""
        return self._one(database, "first_due", due_from=due_from, at=None, spared=integer_array(spared))

    def delete_dead_node(self, database: Database, dead: int, heartbeat: int) -> bool:
        """Declare a node dead unless its heartbeat has changed."""
        return bool(self._rows(database, "delete_dead_node", dead=dead, beat=heartbeat))

    def rescue(
        self, database: Database, dead: int, max_losses: int, hooks: Iterable[str] = (), *, limit: int = 1000,
        spared: Iterable[int] = (),
    ) -> list[LostJob]:  # fmt: skip
        """Release jobs of a dead node; return them. hooks: see `record_node_loss`."""
        return self._record_node_loss(
            database, max_losses, json.dumps(NODE_LOST), hooks, dead=dead, limit=limit, spared=spared
        )

    def first_lost(self, database: Database, dead: int, spared: Iterable[int] = ()) -> int | None:
        """Return the job that `rescue` would release first."""
        return self._one(database, "first_lost", dead=dead, spared=integer_array(spared))

    def _record_node_loss(
        self,
        database: Database,
        max_losses: int,
        error: str,
        hooks: Iterable[str],
        *,
        dead: int | None = None,
        job: int | None = None,
        token: int | None = None,
        limit: int = 1,
        spared: Iterable[int] = (),
    ) -> list[LostJob]:
        error = escape_unstorable(database, error)
        rows = self._rows(
            database, "record_node_loss", dead=dead, id=job, token=token, max_losses=max_losses, error=error,
            hooks=list(hooks), limit=limit, spared=integer_array(spared),
        )  # fmt: skip
        return [LostJob(*row) for row in rows]

    def declare_cron(
        self, database: Database, node: int, *, name: str, task: str, expression: str, timezone: str
    ) -> None:
        """Declare a schedule."""
        self._count(database, "declare_cron", node=node, name=name, task=task, expression=expression, timezone=timezone)

    def schedules(self, database: Database, names: Sequence[str]) -> list[tuple[str, str, str, str, float, float]]:
        """Return (name, task, expression, timezone, last tick, now) of the schedules with these names."""
        return [tuple(row) for row in self._rows(database, "schedules", names=list(names))]

    def tick(
        self,
        database: Database,
        spec: JobSpec,
        key: str | None,
        *,
        name: str,
        tick: float,
        expression: str,
        timezone: str,
        at: float | None = None,
    ) -> Tick | None:
        """Enqueue one tick; return None if another node has done so.

        key is the unique key of the job, or None. Raises LockNotAvailable if an uncommitted transaction has inserted
        the same key; try again later.
        """
        schedule = {"name": name, "tick": tick, "expression": expression, "timezone": timezone}
        rows = self._rows(database, "tick", **{**spec.parameters, **schedule, "key": key, "at": at})
        return Tick(*rows[0][:2]) if rows else None

    def delete_unused_schedules(self, database: Database) -> int:
        """Delete schedules that no live node declares."""
        return self._count(database, "delete_unused_schedules")

    def expire(self, database: Database, *, limit: int = 1000, spared: Iterable[int] = ()) -> list[int]:
        """Cancel jobs that have expired, or were released after a cancellation was requested; return them."""
        return [row[0] for row in self._rows(database, "expire", limit=limit, spared=integer_array(spared))]

    def first_expired(self, database: Database, spared: Iterable[int] = ()) -> int | None:
        """Return the job that `expire` would end first."""
        return self._one(database, "first_expired", spared=integer_array(spared))

    def delete_expired_keys(self, database: Database) -> int:
        """Delete keys whose period has ended; return their number, at most 1,000."""
        return self._count(database, "delete_expired_keys")

    def delete_unheld_keys(self, database: Database, after: int) -> int | None:
        """Delete keys of jobs above `after` that have ended; return the highest job checked, None at the end."""
        found: int | None = self._rows(database, "delete_unheld_keys", after=after)[0][0]
        return found

    # Rows that no statement writes

    def restart_unclaimed(self, database: Database) -> list[int]:
        """Release running jobs that name no node or no claim; return their ids."""
        return [row[0] for row in self._rows(database, "restart_unclaimed")]

    def old_claims(self, database: Database, node: int, age: float) -> set[int]:
        """Return the tokens of this node's claims that are older than `age` seconds or have no time."""
        return {row[0] for row in self._rows(database, "old_claims", node=node, age=age)}

    def renumber(self, database: Database, queues: Sequence[str], priorities: Sequence[int]) -> list[int]:
        """Give available jobs a new seq if no claim would find theirs; return their ids."""
        parameters = {"queues": text_array(queues), "priorities": integer_array(priorities)}
        return [row[0] for row in self._rows(database, "renumber", **parameters)]

    def end_invalid(self, database: Database) -> list[int]:
        """Discard jobs whose state is none of an unfinished job; return their ids."""
        return [row[0] for row in self._rows(database, "end_invalid")]

    def date_failures(self, database: Database) -> list[int]:
        """Set the time of failed jobs that have none; return their ids."""
        return [row[0] for row in self._rows(database, "date_failures")]

    def discard_failed(
        self, database: Database, keep: float, *, limit: int = 1000, spared: Iterable[int] = ()
    ) -> list[int]:
        """Move jobs that failed longer ago than `keep` seconds to the history; return them."""
        rows = self._rows(database, "discard_failed", keep=keep, limit=limit, spared=integer_array(spared))
        return [row[0] for row in rows]

    def first_discarded(self, database: Database, keep: float, spared: Iterable[int] = ()) -> int | None:
        """Return the job that `discard_failed` would move first."""
        return self._one(database, "first_discarded", keep=keep, spared=integer_array(spared))

    def expired_days(self, database: Database, keep: int) -> list[int]:
        """Return the ring days that are more than `keep` days old."""
        return [row[0] for row in self._rows(database, "expired_days", keep=keep)]

    def truncate_history_day(self, database: Database, day: int) -> bool:
        """Truncate a ring day if it has rows; raises LockNotAvailable instead of waiting for, say, a pg_dump."""
        return bool(self._rows(database, "truncate_history_day", day=day)[0][0])

    def listen(self, database: Database) -> None:
        """Receive a notification for jobs enqueued while the node is idle."""
        database.execute(self._sql["listen"])
