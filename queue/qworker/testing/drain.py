"""Runs the jobs that are available, in the test's process and on its transaction."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from typing import Any, Literal

from qworker import App, clock
from qworker.claims import ClaimedJob, Claims
from qworker.context import RunningJob, running
from qworker.db.adapters import Connection
from qworker.db.statements import Statements
from qworker.errors import Interrupt, InvalidOperation, UnknownTask
from qworker.job import JobState
from qworker.maintenance import Maintenance
from qworker.options import check_datetime
from qworker.testing.attempts import Attempt, Runs, refuse_in_event_loop
from qworker.testing.transaction import JobConnections, TestTransaction, bind, connection
from qworker.testing.travel import enqueue_ticks
from qworkerd.outcomes.outcome import Committed, Completed, Failed, Outcome, Released, Retried, Snoozed, Terminated
from qworkerd.outcomes.writes import group
from qworkerd.shared.claim import new_token

#: Maximum number of jobs that become available by one statement.
_PAGE = 1000
#: The node of the claims: no node has this id.
_NODE = 0
#: The time of `due="all"`, in seconds since 1970.
_NEVER = datetime(9999, 1, 1, tzinfo=UTC).timestamp()


def drain(
    app: App,
    queues: Sequence[str] | None = None,
    *,
    due: Literal["now", "all"] | datetime = "now",
    raise_failures: bool = True,
    limit: int = 1000,
    using: Any = None,
) -> list[Attempt]:
    """Run jobs, and those that they enqueue, until none is available; return an entry for each attempt.

    It runs on the test's transaction: that of `using` (a psycopg Connection, a SQLAlchemy Session or Connection, a
    Django alias), or of `join`, or that of `App(session=...)`, or Django's. Without one, a connection of the pool
    is used, and jobs are committed. Each job runs in a savepoint, which is rolled back if the attempt fails, through
    the code of the worker: JSON, middleware, timeouts (in the main thread), retries and failure hooks.

    queues: only these, in this order. due: also jobs that are scheduled until then: now, a datetime, or "all" of them,
    retries included. raise_failures: raise the exception of an attempt, after its outcome is stored. limit: raise
    InvalidOperation if there are more attempts.
    """
    if running.get() is not None:
        raise InvalidOperation("drain() inside a handler: the jobs that it enqueues run after it")
    refuse_in_event_loop("drain", app.tasks.values())
    if using is None:
        using = app.ambient.bound if app.ambient.bound is not None else app.ambient.open_session()
    with ExitStack() as stack:
        database = stack.enter_context(connection(app, using))
        if using is not None or app.ambient.caller() is not None:
            stack.enter_context(bind(app, database))
        transaction = TestTransaction(using, database)
        stack.enter_context(transaction.kept_open())
        run = _Drain(app, transaction, queues, due)
        stack.enter_context(run.runs.prepared())
        return list(run.attempts(limit, raise_failures=raise_failures))


class _Lanes(Statements):
    """The statements of testing.sql."""

    __slots__ = ()

    def available(self, database: Connection, queues: Sequence[str] | None) -> list[tuple[str, int]]:
        """Return the lanes that have jobs."""
        found = self._rows(database, "lanes", queues=None if queues is None else list(queues))
        return [(queue, priority) for queue, priority in found]

    def postpone(self, database: Connection, job: int, seconds: float) -> None:
        """Move the start time of a job."""
        self._rows(database, "postpone", id=job, seconds=seconds)


class _Drain:
    """One call of `drain`."""

    def __init__(
        self, app: App, transaction: TestTransaction, queues: Sequence[str] | None, due: str | datetime
    ) -> None:
        schema = app.schema
        self._app = app
        self._transaction = transaction
        self._queues = queues
        self._due = _epoch(due)
        self._claims = Claims(schema, exclusive=False)
        self._maintenance = Maintenance(schema)
        self._lanes = _Lanes("testing", schema)
        self._token = 0
        self.runs = Runs(app, JobConnections(transaction.database), complete=self._complete, progress=self._progress)

    def attempts(self, limit: int, *, raise_failures: bool) -> Iterator[Attempt]:
        """Run jobs until none is available."""
        for count, row in enumerate(self._rows()):
            if count == limit:
                with self._transaction.plain() as database:
                    self._claims.release(database, self._token, [row.id])
                raise InvalidOperation(
                    f"drain() has run {limit} attempts, and jobs are left: does a job enqueue itself? pass limit="
                )
            attempt = self._run(row)
            # KeyboardInterrupt, for instance, or pytest.fail(): what ends the test and not the job.
            ends_test = not isinstance(attempt.error, Exception | Interrupt | SystemExit)
            if attempt.error is not None and (raise_failures or ends_test):
                raise attempt.error
            yield attempt

    def _rows(self) -> Iterator[ClaimedJob]:
        """Claim one job after the other, most urgent first.

        Like a worker's, claims start after the job claimed last: in one transaction the rows of the others remain as
        dead versions, which each claim would have to pass. After a round that finds
        nothing, another one starts from the beginning.
        """
        claimed: dict[tuple[str, int], int] = {}
        found = True
        while (lanes := self._available()) and (found or claimed):
            if not found:
                claimed.clear()
            found = False
            while row := self._claim(lanes, claimed):
                found = True
                claimed[row.queue, row.priority] = row.seq
                yield row

    def _claim(self, lanes: Sequence[tuple[str, int]], claimed: Mapping[tuple[str, int], int]) -> ClaimedJob | None:
        self._token = new_token()
        queues, priorities = zip(*lanes, strict=True)
        with self._transaction.plain() as database:
            rows = self._claims.claim(
                database, node=_NODE, token=self._token, queues=queues, priorities=priorities,
                cursors=[claimed.get(lane, -1) for lane in lanes], limit=1,
            )  # fmt: skip
        return rows[0] if rows else None

    def _available(self) -> list[tuple[str, int]]:
        """Enqueue ticks, end expired jobs, make due jobs available, and return the lanes that have jobs."""
        with self._transaction.plain() as database:
            enqueue_ticks(self._app, database)
            self._maintenance.expire(database, at=clock.at(), limit=_PAGE)
            due = clock.at() if self._due is None else self._due
            while len(self._maintenance.promote(database, 0.0, due, limit=_PAGE)) == _PAGE:
                pass
            return self._lanes.available(database, self._queues)

    def _run(self, row: ClaimedJob) -> Attempt:
        task = self._app.tasks.get(row.task)
        if self._app.origins is not None:
            with self._transaction.plain() as database:
                self._app.origins.read(database, [row.id])
        outcome: Outcome | None
        error: BaseException | None = None
        if task is None:
            outcome = Snoozed(0.0, unknown_task=True)
            known = ", ".join(sorted(self._app.tasks)) or "no tasks"
            error = UnknownTask(f"job {row.id} is of task {row.task!r}, but the application has {known}")
            self._due = None  # or it would be due again at once
        else:
            try:
                with self._transaction.savepoint() as savepoint:
                    outcome = self.runs.run(task, row)
                    savepoint.undone = not isinstance(outcome, Completed | Committed | None)
            except BaseException:  # of a function that the handler has left for the commit, for instance
                with suppress(Exception), self._transaction.plain() as database:
                    self._claims.release(database, self._token, [row.id])
                raise
        self._write(row, outcome)
        raised = self.runs.failures.report()
        self.runs.failures.ended([row.id])
        return self._attempt(row, outcome, error or raised)

    def _write(self, row: ClaimedJob, outcome: Outcome | None) -> None:
        """Write the outcome by the statement of the worker."""
        with self._transaction.plain() as database:
            claim: Any = _Claim(self._token)
            for write in group([(claim, row.id, outcome)]):
                write.write(self._claims, database)
            if clock.offset() and isinstance(outcome, Retried | Snoozed):
                self._lanes.postpone(database, row.id, clock.offset())

    def _attempt(self, row: ClaimedJob, outcome: Outcome | None, error: BaseException | None) -> Attempt:
        state, delay, result = JobState.COMPLETED, None, None
        match outcome:
            case Completed(_, text) if text is not None:
                result = json.loads(text)
            case Committed():
                result = self._app.job(row.id).result
            case Retried(seconds) | Snoozed(seconds):
                state, delay = JobState.SCHEDULED, seconds
            case Failed():
                state = JobState.FAILED
            case Terminated(ended):
                state = JobState(ended)
            case Released():
                state = JobState.AVAILABLE
        task = self._app.tasks.get(row.task)
        if result is not None and task is not None and task.conversion is not None and not row.is_hook:
            result = task.conversion.load_result(result)
        return Attempt(
            row.id, row.task, row.queue, row.attempt, state, json.loads(row.args), result, error, delay, row.is_hook
        )

    def _complete(self, job: RunningJob, duration: float, result: str | None) -> bool:
        with self._transaction.plain() as database:
            return self._claims.complete(database, self._token, job.id, duration=duration, result=result)

    def _progress(self, job_id: int, text: str) -> None:
        with self._transaction.plain() as database:
            self._claims.progress(database, self._token, job_id, text)


class _Claim:
    """The claim of a write, which needs its token only."""

    def __init__(self, token: int) -> None:
        self.token = token


def _epoch(due: str | datetime) -> float | None:
    if isinstance(due, datetime):
        return check_datetime("due", due).timestamp()
    if due not in ("now", "all"):
        raise ValueError(f'due must be "now", "all" or an aware datetime, not {due!r}')
    return None if due == "now" else _NEVER
