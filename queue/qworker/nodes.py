"""A scheduler's statements: what keeps its node alive, and what any node may do for all."""

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

#: Where no row of the table of nodes stands.
NO_CTID = "(0,0)"

#: Stands among the writers for each transaction that was prepared to commit.
PREPARED = "prepared"

#: What is noted on the jobs of a node that is gone; time and attempt are added by the statement.
NODE_LOST = {"type": "NodeLost", "cause": "node-lost", "message": "the node that ran this job was lost"}


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a node says of itself when it renews its lease."""

    #: Its workers, for people.
    state: Jsonb
    #: The lowest place in the queue that it has handed back lately.
    released_seq: int | None = None
    #: Where its row stands in the table of nodes, as the last renewal or `Nodes.place` has told.
    ctid: str = NO_CTID


@dataclass(frozen=True, slots=True)
class PollResult:
    """What one look at the database shows."""

    #: Where the row of this node stands now that the lease is prolonged; None if that was not asked for, or it stands
    #: elsewhere, or others have declared this node dead.
    ctid: str | None
    #: The beats of the other nodes and their leases (seconds), by their id.
    heartbeats: dict[int, tuple[int, float]]
    #: The lowest place that another node has handed back lately.
    released_seq: int | None
    #: The first job behind the floor of each pair of queue and priority, by its place.
    first_available: list[int | None]
    #: The last place that was drawn.
    last_seq: int
    #: The transactions that were writing to the table of jobs; asked for by doubts.
    writers: list[str]
    #: In how many seconds the next job is due; None: none is scheduled.
    due_in: float | None
    #: Jobs of this node that somebody wants cancelled.
    cancels: list[int]
    #: Whether the database knows of claims of this node that are out.
    has_running: bool
    #: Nodes that running jobs name and that are no more; asked for by a sweep.
    dead_nodes: list[int]
    #: Whether jobs are to be ended that nobody started in time, or that were cancelled; asked for by a sweep.
    expired: bool
    #: The database's clock (seconds since 1970), and how long it took to see all this, the commit aside (seconds).
    at: float
    took: float

    @property
    def renewed(self) -> bool:
        """Whether the lease was prolonged."""
        return self.ctid is not None

    @property
    def waiting(self) -> bool:
        """Whether a job could be claimed."""
        return any(front is not None for front in self.first_available)


class LostJob(NamedTuple):
    """A job whose node was lost, as it stands now: its attempt is no longer counted."""

    id: int
    task: str
    queue: str
    attempt: int
    state: str


@dataclass(frozen=True, slots=True)
class HeldJob:
    """A job that a claim still holds, with what is needed to decide about it."""

    id: int
    task: str
    queue: str
    attempt: int
    crashes: int
    flags: int
    overrides: str | None
    #: Whether somebody wants it cancelled.
    cancelled: bool


@dataclass(frozen=True, slots=True)
class Tick:
    """A tick that this node has won."""

    #: The job; None: none was made, because another one holds its unique key.
    job: int | None
    #: The job that holds the key, if it is known.
    holder: int | None


class Nodes:
    """The statements for one schema, on whatever connection they are given; each is one statement and one commit."""

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

    # A node's own life

    def register(
        self, database: Database, *, name: str, version: str, queues: Sequence[str], processes: int, lease: float
    ) -> int:
        """Enter a new node; return its id."""
        rows = self._rows(
            database, "register", name=name, version=version, queues=list(queues), processes=processes, lease=lease
        )
        return int(rows[0][0])

    def renew(self, database: Database, node: int, heartbeat: Heartbeat) -> str | None:
        """Prolong the lease of a node whose row stands at `beat.place`.

        Returns where it stands now; None: elsewhere, or others have declared the node dead (`place` tells).
        """
        rows = self._rows(
            database, "renew", node=node, place=heartbeat.ctid, state=heartbeat.state, returned=heartbeat.released_seq
        )
        return rows[0][0] if rows else None

    def find_ctid(self, database: Database, node: int) -> str | None:
        """Look for a node's row; None means that others have declared it dead."""
        rows = self._rows(database, "find_ctid", node=node)
        return rows[0][0] if rows else None

    def set_idle(self, database: Database, node: int, *, idle: bool) -> None:
        """Say whether enqueueing has to wake this node."""
        self._count(database, "mark_idle" if idle else "mark_busy", node=node)

    def deregister(self, database: Database, node: int) -> None:
        """Strike the node off: nothing of it runs any more."""
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
        """See what there is to do behind the floors, one for each pair of queue and priority.

        scrub: also at the places beyond the first of these and up to the second.
        With a beat, prolong the lease as well, as `renew` does.
        """
        renewal = heartbeat or Heartbeat(Jsonb({}))  # stands nowhere
        (row,) = self._rows(
            database, "poll", node=node, queues=text_array(queues), priorities=integer_array(priorities),
            floors=integer_array(watermarks), scrub_from=scrub[0], scrub_to=scrub[1], due_from=due_from, since=since,
            doubts=with_writers, sweep=sweep, place=renewal.ctid, state=renewal.state, returned=renewal.released_seq,
        )  # fmt: skip
        ctid, heartbeats, *rest = row
        return PollResult(ctid, {int(key): (number, lease) for key, (number, lease) in heartbeats.items()}, *rest)

    # Parts of a look, for when that fails as a whole

    def heartbeats(self, database: Database, node: int) -> dict[int, tuple[int, float]]:
        """Return the beats of the other nodes and their leases (seconds), by their id."""
        return {other: (beat, lease) for other, beat, lease in self._rows(database, "beats", node=node)}

    def cancels(self, database: Database, node: int) -> list[int]:
        """Return the jobs of this node that somebody wants cancelled."""
        return [row[0] for row in self._rows(database, "cancels", node=node)]

    def dead_nodes(self, database: Database) -> list[int]:
        """Return the nodes that running jobs name and that are gone."""
        return [row[0] for row in self._rows(database, "strays")]

    def unfinished(self, database: Database, queues: Sequence[str]) -> bool:
        """Tell whether these queues still hold work."""
        return bool(self._rows(database, "unfinished", queues=list(queues))[0][0])

    # The graves

    def claim_jobs(self, database: Database, node: int, token: int) -> list[HeldJob]:
        """Return the jobs that a claim still holds."""
        return [HeldJob(*row) for row in self._rows(database, "claim_jobs", node=node, token=token)]

    def record_crash(self, database: Database, token: int, job: int, *, delay: float, error: str) -> bool:
        """Count a crash, and let the job run again after `delay` seconds."""
        error = escape_unstorable(database, error)
        return bool(self._rows(database, "record_crash", id=job, token=token, delay=delay, error=error))

    def record_node_loss(
        self, database: Database, token: int, job: int, max_losses: int, error: str, hooks: Iterable[str] = ()
    ) -> list[LostJob]:
        """Give back the job that ran when its node had to stop; return it if it was still the claim's.

        hooks are the tasks that have a failure hook: lost too often, the job fails.
        """
        return self._record_node_loss(database, max_losses, error, hooks, job=job, token=token)

    def end_sessions(self, database: Database, tag: str) -> int:
        """End what a dead process has left running in the server; return how many sessions."""
        return len(self._rows(database, "end_sessions", tag=tag))

    def release_claim(self, database: Database, node: int, token: int, excluded: Iterable[int] = ()) -> int:
        """Give back, uncounted, what a claim still holds, but for some jobs; return how many."""
        return len(self._rows(database, "release_claim", node=node, token=token, spared=integer_array(excluded)))

    def running(self, database: Database, node: int, since: float) -> list[tuple[int, int, float]]:
        """Return (job, token, claimed at) of what the database says the node runs."""
        return [(job, token, at) for job, token, at in self._rows(database, "running", node=node, since=since)]

    # For the whole cluster

    def promote(
        self, database: Database, due_from: float, at: float | None = None, *, limit: int = 1000,
        spared: Iterable[int] = (),
    ) -> list[str]:  # fmt: skip
        """Make due jobs available; return their queues."""
        rows = self._rows(database, "promote", due_from=due_from, at=at, limit=limit, spared=integer_array(spared))
        return [row[0] for row in rows]

    def first_due(self, database: Database, due_from: float, spared: Iterable[int] = ()) -> int | None:
        """Return the job that `promote` would take first."""
        return self._one(database, "first_due", due_from=due_from, at=None, spared=integer_array(spared))

    def delete_dead_node(self, database: Database, dead: int, heartbeat: int) -> bool:
        """Declare a node dead unless its beat has moved."""
        return bool(self._rows(database, "delete_dead_node", dead=dead, beat=heartbeat))

    def rescue(
        self, database: Database, dead: int, max_losses: int, hooks: Iterable[str] = (), *, limit: int = 1000,
        spared: Iterable[int] = (),
    ) -> list[LostJob]:  # fmt: skip
        """Free jobs of a dead node; return them. hooks as for `record_node_loss`."""
        return self._record_node_loss(
            database, max_losses, json.dumps(NODE_LOST), hooks, dead=dead, limit=limit, spared=spared
        )

    def first_lost(self, database: Database, dead: int, spared: Iterable[int] = ()) -> int | None:
        """Return the job that `rescue` would free first."""
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
        """Return (name, task, expression, timezone, last tick, now) of the schedules of these names."""
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
        """Enqueue one tick, unless another node has already: then None.

        key is the unique key of the job if it has one. Raises LockNotAvailable when somebody has not yet committed the
        same key: the tick can be had later.
        """
        schedule = {"name": name, "tick": tick, "expression": expression, "timezone": timezone}
        rows = self._rows(database, "tick", **{**spec.parameters, **schedule, "key": key, "at": at})
        return Tick(*rows[0][:2]) if rows else None

    def delete_unused_schedules(self, database: Database) -> int:
        """Forget schedules that nobody declares."""
        return self._count(database, "delete_unused_schedules")

    def expire(self, database: Database, *, limit: int = 1000, spared: Iterable[int] = ()) -> list[int]:
        """End jobs that were not started in time, and cancelled ones that were handed back; return them."""
        return [row[0] for row in self._rows(database, "expire", limit=limit, spared=integer_array(spared))]

    def first_expired(self, database: Database, spared: Iterable[int] = ()) -> int | None:
        """Return the job that `expire` would end first."""
        return self._one(database, "first_expired", spared=integer_array(spared))

    def delete_expired_keys(self, database: Database) -> int:
        """Drop uniqueness whose period is over; return how many keys, 1,000 at the most."""
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
        """Return the days of the ring that are older than `keep` days."""
        return [row[0] for row in self._rows(database, "expired_days", keep=keep)]

    def truncate_history_day(self, database: Database, day: int) -> bool:
        """Truncate a day of the ring if it holds anything; raises LockNotAvailable rather than wait for a pg_dump."""
        return bool(self._rows(database, "truncate_history_day", day=day)[0][0])

    def listen(self, database: Database) -> None:
        """Hear of jobs enqueued while the node is idle."""
        database.execute(self._sql["listen"])
