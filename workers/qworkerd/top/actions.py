"""What the keys do to jobs, queues, nodes and schedules: each action returns what it has done, or why not."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any

import psycopg

from qworker.actor import Via, acting_as
from qworker.admin import Admin
from qworker.db.pool import Connection, Pool
from qworker.error_groups import ErrorGroup
from qworker.errors import JobNotFound, QworkerError
from qworker.job import Job, JobState
from qworker.operations import Action, Operation, Operations
from qworker.search import Search
from qworker.snapshot import QueueActivity, RunningJob
from qworker.stacks import JobStack
from qworker.status import NodeStatus
from qworker.timetable import ScheduleEntry
from qworkerd.top.cells import harmless
from qworkerd.top.reading import describe

#: Connections of the actions: a request for a stack waits for seconds, and others must not wait for it.
CONNECTIONS = 3
#: Maximum number of jobs that one statement changes.
PAGE = 500
#: How long an action takes part in an operation before it leaves the rest to the nodes, and how often it asks how far
#: they are (seconds).
ASSIST_TIME, POLL = 5.0, 0.1
#: Why a job was not changed.
RULES = {
    "retry": "only failed jobs can be retried",
    "cancel": "only unfinished jobs can be cancelled",
    "discard": "only failed jobs can be discarded",
}
#: What a job is after it was changed.
RESULTS = {"retry": "available again", "discard": "discarded", "cancel": "cancelled"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an action has done."""

    message: str
    ok: bool = True


class Actions:
    """Takes actions, on connections of its own. The methods may be called by several threads."""

    def __init__(self, pool: Pool, *, read_only: bool = False) -> None:
        self._pool = Pool(pool.dsn, pool.schema, size=CONNECTIONS, statement_timeout=10.0, lock_timeout=2.0)
        self._admin = Admin(self._pool)
        self._operations = Operations(pool.schema)
        self._search = Search(self._pool, shared=True)
        #: Whether all actions are refused.
        self.read_only = read_only

    def attempt(self, action: Callable[[], Outcome]) -> Outcome:
        """Take an action, recorded as taken here; an error becomes its message."""
        if self.read_only:
            return Outcome("nothing can be changed: started with --read-only", ok=False)
        try:
            with acting_as(via=Via.TOP):
                return action()
        except psycopg.errors.InsufficientPrivilege as error:
            return Outcome(
                f"not permitted: {harmless(describe(error))}; this needs a role with `db grant --as admin`", ok=False
            )
        except (QworkerError, psycopg.Error, ValueError) as error:
            return Outcome(harmless(describe(error)), ok=False)

    def change(self, verb: str, rows: Sequence[Any]) -> Outcome:
        """Retry, cancel or discard jobs, or the failed jobs of groups of errors."""
        if rows and all(isinstance(row, ErrorGroup) for row in rows):
            if verb == "cancel":
                return Outcome("failed jobs cannot be cancelled: press D to discard them", ok=False)
            return self._change_groups(verb, rows)
        ids = sorted({_job(row).id for row in rows})
        changed: dict[int, JobState | None] = {}
        for at in range(0, len(ids), PAGE):
            changed |= self._changed(verb, ids[at : at + PAGE])
        if len(ids) == 1:
            return self._single(verb, ids[0], changed)
        requested = sum(state is JobState.RUNNING for state in changed.values())
        parts = [f"{len(changed) - requested:,} of {len(ids):,} jobs are {RESULTS[verb]}"]
        parts += [f"cancellation of {requested:,} running jobs requested"] * bool(requested)
        parts += [RULES[verb]] * (len(changed) < len(ids))
        return Outcome("; ".join(parts), ok=len(changed) == len(ids))

    def stack(self, job_id: int) -> JobStack:
        """Return the stacks of a running job; raises StackUnavailable."""
        return self._admin.stack(job_id)

    def pause(self, rows: Sequence[Any], reason: str) -> Outcome:
        """Pause queues, nodes or schedules."""
        names = _names(rows)
        changed: Sequence[object]
        if isinstance(rows[0], ScheduleEntry):
            changed = self._admin.pause_schedules(*names, reason=reason or None)
        elif isinstance(rows[0], NodeStatus):
            changed = self._admin.pause_nodes(*(row.id for row in rows), reason=reason or None)
        else:
            changed = self._admin.pause(*names, reason=reason or None)
        return Outcome(_described(rows, names, changed, ("is paused", "was already paused")), ok=bool(changed))

    def resume(self, rows: Sequence[Any]) -> Outcome:
        """Resume queues, nodes or schedules."""
        names = _names(rows)
        changed: Sequence[object]
        if isinstance(rows[0], ScheduleEntry):
            changed = self._admin.resume_schedules(*names)
        elif isinstance(rows[0], NodeStatus):
            changed = self._admin.resume_nodes(*(row.id for row in rows))
        else:
            changed = self._admin.resume(*names)
        return Outcome(_described(rows, names, changed, ("is resumed", "was not paused")), ok=bool(changed))

    def close(self) -> None:
        """Close the unused connections."""
        self._pool.close()

    def _changed(self, verb: str, ids: Sequence[int]) -> dict[int, JobState | None]:
        found: Iterable[int] = getattr(self._admin, verb)(*ids)
        return dict(found) if isinstance(found, dict) else dict.fromkeys(found)

    def _single(self, verb: str, job_id: int, changed: dict[int, JobState | None]) -> Outcome:
        if job_id in changed:
            if changed[job_id] is JobState.RUNNING:
                return Outcome(f"job {job_id} is running: its cancellation is requested")
            return Outcome(f"job {job_id} is {RESULTS[verb]}")
        try:
            state = self._admin.show(job_id).state
        except JobNotFound:
            return Outcome(f"job {job_id} does not exist any longer", ok=False)
        return Outcome(f"job {job_id} is {state}: {RULES[verb]}", ok=False)

    def _change_groups(self, verb: str, groups: Sequence[ErrorGroup]) -> Outcome:
        """Create an operation for the failed jobs of each group, and take part in it for a while."""
        done, operations = 0, []
        upper = self._search.last_id()
        for group in groups:
            wanted = self._admin.jobs_of_error_group(group.fingerprint)
            with self._pool.connection(None) as conn:
                operation = self._operations.create(conn, Action(verb), wanted, upper_id=upper)
                operation = self._advance(conn, operation)
            done += operation.done
            if operation.running:
                operations.append(str(operation.id))
        if operations:
            return Outcome(
                f"{done:,} failed jobs are {RESULTS[verb]}; the nodes go on: operation {', '.join(operations)}"
            )
        if not done:
            return Outcome("no job of the chosen errors is failed now", ok=False)
        return Outcome(f"{done:,} failed jobs are {RESULTS[verb]}")

    def _advance(self, conn: Connection, operation: Operation) -> Operation:
        until = monotonic() + ASSIST_TIME
        while operation.running and monotonic() < until:
            found = self._operations.advance(conn, operation.id)
            if found is None:  # a node is at work on it
                sleep(POLL)
            operation = found or self._operations.get(conn, operation.id)
        return operation


def job_of(row: Any) -> Job | None:
    """Return the job of a row; None if it is not a job."""
    return row.job if isinstance(row, RunningJob) else row if isinstance(row, Job) else None


def _job(row: Any) -> Job:
    job = job_of(row)
    assert job is not None  # noqa: S101 - the keys are only offered where rows are jobs
    return job


def _names(rows: Sequence[QueueActivity | NodeStatus | ScheduleEntry]) -> list[str]:
    return [row.name for row in rows]


def _described(rows: Sequence[Any], names: Sequence[str], changed: Sequence[object], words: tuple[str, str]) -> str:
    kind = "schedule" if isinstance(rows[0], ScheduleEntry) else "node" if isinstance(rows[0], NodeStatus) else "queue"
    if len(names) == 1:
        return f"{kind} {harmless(names[0])} {words[not changed]}"
    return f"{len(changed):,} of {len(names):,} {kind}s: {words[0].removeprefix('is ')}"
