"""Operations: actions on all jobs that match a filter, in slices, at a rate, and independent of the client.

An operation is a row. Any node, and the client that waits for it, takes the next slice: it locks the row, changes jobs,
and moves the cursor in one transaction. Each job therefore has its turn exactly once, whatever dies meanwhile.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row

from qworker.actor import Actor, Via, current_actor
from qworker.db.statements import Database, load
from qworker.decoding import decode_object
from qworker.errors import QworkerError
from qworker.filters import Filter, InvalidFilter, parse_stored
from qworker.job import WAITING, JobState, to_datetime
from qworker.nearest import not_found
from qworker.options import check_move
from qworker.scan import Scan
from qworker.slices import MAX_ERROR, ActionStatement, Slice

#: Jobs of one slice.
SLICE = 500
#: When a slice is tried again that the database has refused as a whole (seconds).
RETRY_SLICE = 10.0
#: The lowest and the highest rate (jobs per second).
MIN_RATE, MAX_RATE = 0.0001, 1_000_000


class Action(StrEnum):
    """What an operation does with each job."""

    RETRY = "retry"
    CANCEL = "cancel"
    DISCARD = "discard"
    #: Enqueue a copy.
    AGAIN = "again"
    #: Make scheduled jobs available.
    RUN_NOW = "run_now"
    #: To another queue or priority.
    MOVE = "move"

    @property
    def states(self) -> tuple[JobState, ...]:
        """The states of jobs on which the action has an effect."""
        return _STATES[self]


_STATES = {
    Action.RETRY: (JobState.FAILED,),
    Action.CANCEL: (*WAITING, JobState.RUNNING),
    Action.DISCARD: (JobState.FAILED,),
    Action.AGAIN: (JobState.COMPLETED, JobState.CANCELLED, JobState.DISCARDED, JobState.FAILED),
    Action.RUN_NOW: (JobState.SCHEDULED,),
    Action.MOVE: (*WAITING, JobState.FAILED),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """An operation, and how far it is."""

    id: int
    action: Action
    #: The filter of its jobs, including the states on which the action has an effect.
    filter: str
    #: For `move`: queue and priority.
    options: Mapping[str, Any]
    #: The highest id when it was created. Newer jobs do not belong to it.
    upper_id: int
    #: The cursor: jobs with this id and higher ones have been dealt with.
    below: int
    #: Jobs per second; None for as many as possible.
    rate: float | None
    #: The number of matching jobs when it was created; None if they were too many to count.
    expected: int | None
    #: Jobs that were changed; that were in another state or locked; that the database refused to change.
    done: int
    skipped: int
    failed: int
    #: running, stopped, completed, or failed if its filter cannot be read.
    state: str
    #: Who created it, from where, and why.
    actor: str
    address: str | None
    note: str | None
    #: Why the database refused to change a job.
    error: str | None
    created_at: datetime
    finished_at: datetime | None

    @property
    def running(self) -> bool:
        """Whether it continues."""
        return self.state == "running"

    @property
    def handled(self) -> int:
        """The number of jobs that have had their turn."""
        return self.done + self.skipped + self.failed

    @property
    def share(self) -> float | None:
        """The part of the expected jobs that has had its turn, 0 to 1; None if they were too many to count."""
        if self.state == "completed":
            return 1.0
        return None if self.expected is None else min(self.handled / max(self.expected, 1), 1.0)

    def speed(self, now: datetime) -> float:
        """Return the jobs that had their turn per second since it was created; now: an aware datetime."""
        return self.handled / max(((self.finished_at or now) - self.created_at).total_seconds(), 0.001)

    def remaining(self, now: datetime) -> float | None:
        """Return how long it takes at this speed (seconds); None if it does not run, or if that is not known."""
        speed = self.speed(now)
        if not self.running or self.expected is None or not speed:
            return None
        return max(self.expected - self.handled, 0) / speed


class Operations:
    """The statements for operations in one schema; each method takes the connection to use."""

    def __init__(self, schema: str) -> None:
        self._schema = schema
        self._sql = load("operations", schema)
        self._actions = load("admin", schema)
        #: The size of the next slice of operations whose jobs take long to change.
        self._sizes: dict[int, int] = {}

    def create(
        self, conn: Database, action: Action, wanted: Filter, *, upper_id: int, expected: int | None = None,
        rate: float | None = None, options: Mapping[str, Any] | None = None,
    ) -> Operation:  # fmt: skip
        """Create an operation on the jobs that match a filter and whose ids are at most upper_id.

        rate: jobs per second. options: for `move`, queue and priority.
        """
        if rate is not None and not MIN_RATE <= rate <= MAX_RATE:
            raise ValueError(f"rate must be from {MIN_RATE} to {MAX_RATE:,} jobs per second, not {rate!r}")
        given = dict(options or {})
        if action is Action.MOVE:
            check_move(**given)
        parameters = {
            "action": action.value, "filter": str(wanted.limited_to(action.states)), "options": json.dumps(given),
            "upper_id": upper_id, "rate": rate, "expected": expected, **current_actor().parameters,
        }  # fmt: skip
        return self._operations(conn, "create", parameters)[0]

    def advance(self, conn: Database, operation_id: int | None = None) -> Operation | None:
        """Carry out the next slice of one operation, or of any; return how far it is then.

        Return None if none is due, or if other sessions are at work on all that are. If the database refuses the slice
        as a whole, its error is kept and raised, and the operation is tried again later: it must not be the next one
        for ever, before all others.
        """
        operation = None
        try:
            with conn.transaction():
                conn.execute(self._sql["limits"], prepare=False)
                locked = self._operations(conn, "lock_next", {"id": operation_id})
                if not locked:
                    return None
                operation = locked[0]
                return self._slice(conn, operation)
        except psycopg.Error as error:
            # A client may lack the privileges that nodes have.
            if operation is not None and operation_id is None and not conn.closed:
                reason = f"tried again: {error.diag.message_primary or error}"[:MAX_ERROR]
                conn.execute(self._sql["postpone"], {"id": operation.id, "seconds": RETRY_SLICE, "error": reason})
            raise

    def _slice(self, conn: Database, operation: Operation) -> Operation:
        """Carry out the next slice of an operation that is locked."""
        try:
            wanted = parse_stored(operation.filter)
        except InvalidFilter as error:  # created by a newer version, which knows other keys
            return self._advanced(conn, operation, state="failed", error=str(error))
        scan = Scan(conn, self._schema, wanted, operation.created_at.timestamp())
        if scan.indexes:
            scan.read_indexes()
        most = self._sizes.pop(operation.id, SLICE)
        size = most if operation.rate is None else max(1, min(most, int(operation.rate)))
        batch = scan.batch(operation.below, size)
        slice_ = Slice(conn, self._statement(operation), lockable=self._sql["unlocked"])
        if batch.ids:
            slice_.change(batch.ids, locks=operation.action is not Action.AGAIN)
        below, handled = batch.below, len(batch.ids)
        if slice_.rest:
            below = slice_.rest[0] + 1
            handled = sum(job >= below for job in batch.ids)
        if below is not None and (most < SLICE or slice_.slow):
            self._sizes[operation.id] = max(1, handled) if slice_.slow else min(2 * most, SLICE)
        return self._advanced(
            conn, operation, below=operation.below if below is None else below,
            state="running" if below is not None else "completed", error=slice_.error,
            done=slice_.done, failed=slice_.failed, skipped=handled - slice_.done - slice_.failed,
        )  # fmt: skip

    def stop(self, conn: Database, operation_id: int) -> Operation | None:
        """Stop an operation after its current slice; return None if it does not run."""
        found = self._operations(conn, "stop", {"id": operation_id, **current_actor().parameters})
        return found[0] if found else None

    def get(self, conn: Database, operation_id: int) -> Operation:
        """Return an operation; raises OperationNotFound."""
        wanted = {"id": operation_id, "running": None, "below": None, "limit": 1}
        for operation in self._operations(conn, "find", wanted):
            return operation
        raise OperationNotFound(not_found("operation", operation_id, listing="operations list"))

    def find(
        self, conn: Database, *, running: bool = False, below: int | None = None, limit: int = 50
    ) -> list[Operation]:  # fmt: skip
        """Return operations, or those that run, newest first; below: the last id of the page before."""
        wanted = {"id": None, "running": running, "below": below, "limit": limit}
        return self._operations(conn, "find", wanted)

    def delete_old(self, conn: Database) -> int:
        """Delete operations that ended more than 400 days ago."""
        return conn.execute(self._sql["delete_old"]).rowcount

    def _statement(self, operation: Operation) -> ActionStatement:
        note = f"operation {operation.id}{f': {operation.note}' if operation.note else ''}"
        actor = Actor(operation.actor, Via.OPERATION, operation.address, note)
        options = {"args": None, "queue": None, "priority": None} | dict(operation.options)
        return ActionStatement(self._actions[operation.action.value], options | actor.parameters)

    def _advanced(self, conn: Database, operation: Operation, **values: Any) -> Operation:
        parameters = {"id": operation.id, "below": operation.below, "done": 0, "skipped": 0, "failed": 0, "error": None}
        return self._operations(conn, "advance", parameters | values)[0]

    def _operations(self, conn: Database, statement: str, parameters: Mapping[str, Any]) -> list[Operation]:
        cursor = conn.cursor(row_factory=namedtuple_row)
        return [_operation(row._asdict()) for row in cursor.execute(self._sql[statement], parameters).fetchall()]


class OperationNotFound(QworkerError, LookupError):
    """The operation does not exist."""


def _operation(row: dict[str, Any]) -> Operation:
    row.pop("pg_notify", None)
    row["options"] = decode_object(row["options"])
    row["action"] = Action(row["action"])
    row["created_at"], row["finished_at"] = to_datetime(row["created_at"]), to_datetime(row["finished_at"])
    return Operation(**row)
