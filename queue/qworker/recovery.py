"""The statements that settle the jobs of dead workers and dead nodes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from qworker.claims import WriteSuppressed
from qworker.db.arrays import integer_array
from qworker.db.encoding import escape_unstorable
from qworker.db.statements import DEFAULT_SCHEMA, Database, Statements
from qworker.job import JobState


class LostJob(NamedTuple):
    """A job whose node was lost, after it was released; its attempt is no longer counted."""

    id: int
    task: str
    queue: str
    attempt: int
    state: str
    #: False if a trigger suppresses its failure hook.
    hook_stored: bool = True


@dataclass(frozen=True, slots=True)
class HeldJob:
    """A job that still belongs to a claim, with the values that decide its outcome."""

    id: int
    task: str
    queue: str
    attempt: int
    crashes: int
    is_hook: bool
    overrides: str | None
    #: Whether its cancellation is requested.
    cancelled: bool
    #: How long it waited before it was claimed (seconds).
    waited: float = 0.0


class LeftJob(NamedTuple):
    """A job that has left its claim by the end of its attempt."""

    id: int
    #: Whether this attempt has ended it; else it may have run again.
    ended: bool
    #: Its state after the attempt, if that is known.
    state: JobState
    #: How long the handler ran, and how long the job had waited (seconds); None if that is not stored any more.
    duration: float | None
    waited: float | None


class RunningClaim(NamedTuple):
    """A job that runs according to the database."""

    id: int
    token: int
    #: Seconds since 1970.
    claimed_at: float


class Recovery(Statements):
    """The statements for lost jobs; each method is one statement and one commit."""

    __slots__ = ()

    def __init__(self, schema: str = DEFAULT_SCHEMA) -> None:
        super().__init__("recovery", schema)

    # Dead workers of this node

    def claim_jobs(self, database: Database, node: int, token: int) -> list[HeldJob]:
        """Return the jobs that still belong to a claim."""
        return self._records(database, "claim_jobs", HeldJob, node=node, token=token)

    def record_crash(self, database: Database, token: int, job: int, *, delay: float, error: str) -> bool:
        """Count a crash and make the job available again after `delay` seconds."""
        error = escape_unstorable(database, error)
        return bool(self._rows(database, "record_crash", id=job, token=token, delay=delay, error=error))

    def record_node_loss(
        self, database: Database, token: int, job: int, max_node_losses: int, error: str, hooks: Iterable[str] = ()
    ) -> list[LostJob]:
        """Release the job that ran when its node had to stop; return it if it still belonged to the claim.

        After `max_node_losses` losses the job fails. hooks are the tasks that have a failure hook.
        """
        return self._record_node_loss(database, max_node_losses, error, hooks, job=job, token=token)

    def left(self, database: Database, token: int, jobs: Mapping[int, tuple[int, str | None]]) -> list[LeftJob]:
        """Return those jobs that have left a claim by the end of their attempts.

        jobs: by id, the number of the attempt, and the time or the type of its error as stored: empty if it did not
        fail, None if it was snoozed.
        """
        attempts, marks = zip(*jobs.values(), strict=True) if jobs else ((), ())
        rows = self._rows(
            database, "left", token=token, ids=integer_array(jobs), attempts=list(attempts), marks=list(marks)
        )
        return [LeftJob(job, ended, JobState(state), *times) for job, ended, state, *times in rows]

    def release_claim(self, database: Database, node: int, token: int, excluded: Iterable[int] = ()) -> list[int]:
        """Release the jobs of a claim except `excluded`, without counting the attempts; return their ids."""
        excluded_ids = integer_array(excluded)
        return self._column(database, "release_claim", node=node, token=token, excluded=excluded_ids)

    def end_sessions(self, database: Database, tag: str) -> int:
        """Terminate the sessions of a dead process; return their number."""
        return len(self._rows(database, "end_sessions", tag=tag))

    def running(self, database: Database, node: int, since: float) -> list[RunningClaim]:
        """Return the node's running jobs that were claimed after `since`."""
        return self._records(database, "running", RunningClaim, node=node, since=since)

    def old_claims(self, database: Database, node: int, age: float) -> set[int]:
        """Return the tokens of this node's claims that are older than `age` seconds or have no time."""
        return set(self._column(database, "old_claims", node=node, age=age))

    def restart_unclaimed(self, database: Database) -> list[int]:
        """Release running jobs that name no node or no claim; return their ids."""
        return self._column(database, "restart_unclaimed")

    # Dead nodes

    def delete_dead_node(self, database: Database, dead: int, heartbeat: int) -> bool:
        """Declare a node dead unless its heartbeat has changed. Raises WriteSuppressed if its row cannot be deleted."""
        if self._rows(database, "delete_dead_node", dead=dead, heartbeat=heartbeat):
            return True
        if self._rows(database, "is_silent", dead=dead, heartbeat=heartbeat):
            raise WriteSuppressed
        return False

    def rescue(
        self, database: Database, dead: int, max_node_losses: int, error: str, hooks: Iterable[str] = (), *,
        limit: int = 1000, excluded: Iterable[int] = (),
    ) -> list[LostJob]:  # fmt: skip
        """Release jobs of a dead node; return them. hooks: see `record_node_loss`."""
        return self._record_node_loss(
            database, max_node_losses, error, hooks, dead=dead, limit=limit, excluded=excluded
        )

    def first_lost(self, database: Database, dead: int, excluded: Iterable[int] = ()) -> int | None:
        """Return the job that `rescue` would release first."""
        return self._number(database, "first_lost", dead=dead, excluded=integer_array(excluded))

    def _record_node_loss(
        self,
        database: Database,
        max_node_losses: int,
        error: str,
        hooks: Iterable[str],
        *,
        dead: int | None = None,
        job: int | None = None,
        token: int | None = None,
        limit: int = 1,
        excluded: Iterable[int] = (),
    ) -> list[LostJob]:
        error = escape_unstorable(database, error)
        with database.transaction():
            lost = self._records(
                database, "record_node_loss", LostJob, dead=dead, id=job, token=token, max_node_losses=max_node_losses,
                error=error, hooks=list(hooks), limit=limit, excluded=integer_array(excluded),
            )  # fmt: skip
            if not all(each.hook_stored for each in lost):
                raise WriteSuppressed
        return lost
