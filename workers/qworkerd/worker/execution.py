"""Executes one attempt of a job, without node or slot: decode, middleware, context, timeout, outcome."""

import os
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from json import JSONDecoder
from time import monotonic
from typing import Any, Protocol

import psycopg

from qworker import App, Task
from qworker.claims import ClaimedJob
from qworker.context import RunningJob, running
from qworker.errors import TimeoutInterrupt
from qworker.middleware import HandlerCall, compose
from qworkerd import log
from qworkerd.config.policy import Policy
from qworkerd.outcomes.decide import interrupt_of
from qworkerd.outcomes.outcome import Outcome, Session
from qworkerd.outcomes.reports import Reporter
from qworkerd.worker.conclusions import Conclusions
from qworkerd.worker.forks import Forks
from qworkerd.worker.frames import cut_frames
from qworkerd.worker.hooks import hook_handler
from qworkerd.worker.interrupts import InterruptGate
from qworkerd.worker.returned import check_result
from qworkerd.worker.session import TransactionEnded

#: Duration below which a handler's run time is not recorded (seconds).
_INSTANT = 0.001

_scan = JSONDecoder().scan_once  # type: ignore[attr-defined] # raw_decode without its Python wrapper


class Connections(Protocol):
    """Provides `current_job.connection`, and ends its transaction with the handler."""

    #: The session of the last connection, if it was lost before its commit was confirmed.
    lost: Session | None

    def open(self) -> psycopg.Connection[Any]:
        """Return a connection."""
        ...

    def open_transaction(self) -> psycopg.Connection[Any]:
        """Return a connection in a transaction that the handler cannot end."""
        ...

    def finish(
        self, connection: psycopg.Connection[Any], *, commit: bool, before_commit: Callable[[], bool] | None = None
    ) -> Exception | None:
        """Commit or roll back after before_commit, which returns whether the job is still owned; return the error."""
        ...


class ForkDetector(Protocol):
    """Detects that this process was forked by a handler."""

    @property
    def in_forked_child(self) -> bool:
        """Whether this process is such a child, which must not go on as a worker."""
        ...


class Execution:
    """Calls handlers in the thread of its caller, which has to be the main thread if they have timeouts."""

    def __init__(
        self,
        app: App,
        gate: InterruptGate,
        connections: Connections,
        reporter: Reporter,
        *,
        complete: Callable[[RunningJob, float, str | None], bool],
        progress: Callable[[int, str], None],
        store: Callable[[Outcome], None],
        forks: ForkDetector | None = None,
        job_type: type[RunningJob] = RunningJob,
        verbose: bool = False,
    ) -> None:
        """Create an execution for the tasks of an application.

        complete: writes the end of a transactional job in its transaction. progress: stores the progress of a job.
        store: stores the outcome of an attempt that raised an exception, before it is logged. forks: detects that a
        handler has forked; by default by hooks around fork, which stay until the process ends. job_type: what
        `current_job` is.
        """
        self._app = app
        self._gate = gate
        self._connections = connections
        # Bound once, because every job needs them.
        self._start, self._open, self._open_transaction = (
            job_type.start,
            connections.open,
            connections.open_transaction,
        )
        self._complete = complete
        self._progress = progress
        self._chain = compose(app.middlewares) if app.middlewares else None
        self._conclusions = Conclusions(reporter, store)
        self._forks = forks or Forks()
        self._verbose = verbose
        self._log = log.get()
        #: Whether a handler was interrupted: the state of the process is unknown, and it has to be replaced.
        self.tainted = False

    def run(self, task: Task[..., Any], policy: Policy, row: ClaimedJob, now: float) -> tuple[Outcome | None, float]:
        """Run an attempt that starts now (monotonic); return its outcome and the time at which the handler ended.

        The outcome is None if the handler returned None at once.
        """
        deadline = now + policy.timeout
        hook = row.is_hook
        transactional = task.transactional and not hook  # the end of the job belongs to its transaction
        job = self._start(
            job=row.id, task=row.task, queue=row.queue, attempt=row.attempt, max_attempts=policy.max_attempts,
            enqueued_at=row.enqueued_at, started=now, deadline_at=deadline,
            connect=self._open_transaction if transactional else self._open, report=self._progress,
        )  # fmt: skip
        context_token = running.set(job)
        result: Any = None
        raised: BaseException | None = None
        call: HandlerCall | None = None
        handler: Callable[..., Any]
        positional: Any
        try:
            if hook or task.conversion is not None:
                handler, positional, arguments = self._special_call(task, row)
            else:
                arguments, _ = _scan(row.args, 0)
                handler, positional = task.handler, arguments.pop("*", ())
            if self._chain is not None:
                call = HandlerCall(job, handler, positional, arguments)
                handler, positional, arguments = self._chain, (call,), {}
            returned = self._gate.call(copy_context().run, (handler, *positional), arguments, deadline)
            result = None if returned is None else check_result(returned)
        except BaseException as error:  # noqa: BLE001 - SystemExit and interrupts end a job, not the worker
            raised = error
        ended = monotonic()
        if self._forks.in_forked_child:
            os._exit(1)  # the handler has forked, and this is its child
        if call is not None:
            raised = self._raised_inside(call, raised)
        if job.borrowed_connection is not None:
            raised = self._finish(
                job, task, job.borrowed_connection, raised, ended, result, transactional=transactional
            )
        outcome: Outcome | None = None
        if raised is not None:
            outcome = self._conclude(job, task, policy, raised, ended, row)
        elif result is not None or transactional or ended - now >= _INSTANT:
            committed = transactional and job.borrowed_connection is not None
            outcome = self._conclusions.returned(job, task, policy, result, ended, hook=bool(hook), committed=committed)
        if self._verbose:
            self._log.debug("job.attempt_ended", duration=round(ended - now, 6))
        running.reset(context_token)
        return outcome, ended

    def _special_call(self, task: Task[..., Any], row: ClaimedJob) -> tuple[Callable[..., Any], Any, dict[str, Any]]:
        """Return what is called for a failure hook, or for a task whose arguments are converted: within its timeout."""
        if row.is_hook:
            return hook_handler(self._app, task, row.id), (), {"job_id": _scan(row.args, 0)[0]["job"]}
        return task.run, (row.args,), {}

    def _finish(
        self, job: RunningJob, task: Task[..., Any], connection: psycopg.Connection[Any],
        raised: BaseException | None, ended: float, result: Any, *, transactional: bool,
    ) -> BaseException | None:  # fmt: skip
        """Commit or roll back the work on `current_job.connection`; return the exception of the attempt, if any."""
        before_commit = partial(self._end, job, task, ended, result) if transactional else None
        error = self._connections.finish(connection, commit=raised is None, before_commit=before_commit)
        if raised is None or (isinstance(error, TransactionEnded) and isinstance(raised, Exception)):
            return error
        return raised

    def _raised_inside(self, call: HandlerCall, raised: BaseException | None) -> BaseException | None:
        """Return the exception of the attempt, even if a middleware has caught it.

        A job that was interrupted or snoozed has not done its work. If it were completed, that work would be lost.
        """
        inner = call.raised
        if inner is None and raised is None and not call.returned and self._interrupted(call.job):
            inner = (self._gate.interrupted or TimeoutInterrupt)()  # it was raised in the middleware itself
        if inner is None or raised is inner:
            return raised
        if raised is not None and interrupt_of(raised, timed_out=True) is not None:
            return raised
        self._log.warning(
            "middleware.swallowed", error=type(inner).__name__,
            hint="a middleware has caught an exception that must pass through it; catch Exception, not BaseException",
        )  # fmt: skip
        return inner

    def _interrupted(self, job: RunningJob) -> bool:
        return self._gate.interrupted is not None or self._gate.fired == job.deadline_at

    def _conclude(
        self, job: RunningJob, task: Task[..., Any], policy: Policy, raised: BaseException, ended: float,
        row: ClaimedJob,
    ) -> Outcome:  # fmt: skip
        """Return the outcome of an attempt that raised an exception.

        After an interrupt the state of the process is unknown, and `tainted` is set.
        """
        sent, timed_out = self._gate.interrupted, self._gate.fired == job.deadline_at
        interrupted = interrupt_of(raised, sent=sent, timed_out=timed_out) is not None
        if interrupted:
            self.tainted = True
        cut_frames(raised)
        return self._conclusions.raised(
            job, task, policy, raised, ended, row, interrupted=interrupted, sent=sent, timed_out=timed_out,
            lost=self._connections.lost if job.borrowed_connection is not None else None,
        )  # fmt: skip

    def _end(self, job: RunningJob, task: Task[..., Any], ended: float, result: Any) -> bool:
        """Write the end of the job in the transaction of its work."""
        return self._complete(job, ended - job.started, self._conclusions.encode(task, result))
