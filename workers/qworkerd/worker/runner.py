"""Run a job: its context, its timeout, and its outcome."""

import os
from contextvars import copy_context
from functools import partial
from json import JSONDecoder
from math import inf
from time import monotonic
from typing import Any

from qworker import Task
from qworker.claims import ClaimedJob, Claims
from qworker.context import RunningJob, running
from qworkerd import log
from qworkerd.config.policy import Policies, Policy
from qworkerd.outcomes.decide import interrupt_of
from qworkerd.outcomes.outcome import Committed, Completed, Outcome, Snoozed, dump
from qworkerd.outcomes.reports import Reporter
from qworkerd.shared.claim import Claim, Status
from qworkerd.shared.context import NodeContext
from qworkerd.shared.header import Header
from qworkerd.shared.slots import Slot
from qworkerd.worker.acknowledger import Acknowledger
from qworkerd.worker.conclusions import HOOK, Conclusions
from qworkerd.worker.forks import Forks
from qworkerd.worker.hooks import hook_handler
from qworkerd.worker.interrupts import InterruptGate
from qworkerd.worker.job_connection import JobConnection
from qworkerd.worker.returned import done
from qworkerd.worker.session import TransactionEnded

#: Time allowed for unsent reports when the process ends (seconds).
LAST_REPORTS = 2.0
#: Duration below which a handler's run time is not recorded (seconds).
_INSTANT = 0.001
#: Delay of a job whose task is unknown, doubling (seconds): the first and the longest.
_UNKNOWN_TASK_FIRST, _UNKNOWN_TASK_LONGEST = 5.0, 3600.0
#: Deadline for releasing such a job, and for reading the overrides of a job (seconds).
BOOKKEEPING_TIMEOUT = 10.0

#: How long a job waits for space for its outcome in the slot (seconds).
_ROOM_TIMEOUT = 1.0

_scan = JSONDecoder().scan_once  # type: ignore[attr-defined] # raw_decode without its Python wrapper


class Runner:
    """Calls handlers, and submits their outcomes to the acknowledger."""

    def __init__(self, node: NodeContext, slot: Slot, gate: InterruptGate, acknowledger: Acknowledger) -> None:
        self._app = node.app
        self._tasks = node.app.tasks
        self._policies = Policies(node.settings)
        self._grace = node.settings.kill_grace
        self._header = node.table.header
        self._slot = slot
        self._gate = gate
        self._acknowledger = acknowledger
        self._connection = JobConnection(node, slot)
        self._claims = Claims(node.settings.schema)
        self._forks = Forks()
        self._reporter = Reporter(node.app)
        self._conclusions = Conclusions(self._reporter)
        self._log = log.get()
        self._verbose = node.settings.log_level == "debug"
        self._claim: Claim | None = None
        #: The job whose handler is running; 0 outside of handlers.
        self.current = 0
        #: The job that was interrupted by a signal.
        self.interrupted = 0
        #: Whether a handler was interrupted: the state of the process is unknown, and it is replaced.
        self.tainted = False

    def run(self, claim: Claim, index: int, row: ClaimedJob, now: float) -> float:
        """Run one job of a claim; return the time at which it ended (monotonic)."""
        job_id, _, _, queue, name, text, attempt, _, flags, enqueued_at, overrides, unknown_task_count = row
        task = self._tasks.get(name)
        if task is None:
            self._release_unknown(claim, index, job_id, name, unknown_task_count)
            return now
        if overrides:
            self._begin_bookkeeping(claim, index, job_id)
        policy = self._policies.find(task, overrides)
        deadline = now + policy.timeout
        transactional = task.transactional and not flags & HOOK  # the end of the job belongs to its transaction
        job = RunningJob(
            job_id,
            name,
            queue,
            attempt,
            policy.max_attempts,
            enqueued_at,
            now,
            deadline,
            self._connection.open_transaction if transactional else self._connection.open,
            self._progress,
        )
        self._claim = claim
        self.current = job_id
        # The status is stored before_commit: once it is RUNNING, all other fields belong to this job.
        floats = self._slot.floats
        floats[Slot.DEADLINE] = deadline + self._grace
        floats[Slot.SLOW_AT] = now + policy.slow_after
        floats[Slot.STARTED] = now
        claim.statuses[index] = Status.RUNNING
        context_token = running.set(job)
        result: Any = None
        raised: BaseException | None = None
        try:
            arguments, _ = _scan(text, 0)
            handler = task.handler
            if flags & HOOK:
                handler, arguments = hook_handler(self._app, task, job_id), {"job_id": arguments["job"]}
            positional = arguments.pop("*", ())
            result = done(self._gate.call(copy_context().run, (handler, *positional), arguments, deadline))
        except BaseException as error:  # noqa: BLE001 - SystemExit and our interrupts end a job, not the worker
            raised = error
        ended = monotonic()
        if self._forks.in_forked_child:
            os._exit(1)  # the handler has forked, and its child came back here
        if job.borrowed_connection is not None:
            before_commit = partial(self._complete, job, claim.token, ended, result) if transactional else None
            finish_error = self._connection.finish(
                job.borrowed_connection, commit=raised is None, before_commit=before_commit
            )
            if raised is None or (isinstance(finish_error, TransactionEnded) and isinstance(raised, Exception)):
                raised = finish_error
        committed = transactional and raised is None and job.borrowed_connection is not None
        if raised is None and result is None and not transactional and ended - now < _INSTANT:
            claim.statuses[index] = Status.SUCCEEDED
            self._acknowledger.submit(claim, job_id, None)
        else:
            outcome = self._conclude(job, task, policy, raised, result, ended, row, committed=committed)
            self._submit(claim, index, job_id, outcome)
        if self._verbose:
            self._log.debug("job.attempt_ended", duration=round(ended - now, 6))
        self.current = 0
        running.reset(context_token)
        return ended

    def _submit(self, claim: Claim, index: int, job_id: int, outcome: Outcome) -> None:
        """Store the outcome in the slot, where it survives this process, and submit it to the acknowledger."""
        if isinstance(outcome, Completed) and outcome.result is None:
            claim.statuses[index] = Status.SUCCEEDED
        else:
            # A committed job needs no further write.
            if not isinstance(outcome, Committed):
                record = dump(outcome)
                if not claim.store_outcome(index, record):
                    self._make_room(claim, index, record)
            claim.statuses[index] = Status.DONE
        self._acknowledger.submit(claim, job_id, outcome)

    def _make_room(self, claim: Claim, index: int, record: bytes) -> None:
        """Have earlier outcomes stored in the database first, if possible, to free their space."""
        floats = self._slot.floats
        floats[Slot.DEADLINE] = max(floats[Slot.DEADLINE], monotonic() + _ROOM_TIMEOUT + self._grace)
        self._acknowledger.flush(_ROOM_TIMEOUT)
        if self._acknowledger.is_done:
            claim.clear_outcomes(index)
            claim.store_outcome(index, record)

    def _conclude(
        self,
        job: RunningJob,
        task: Task[..., Any],
        policy: Policy,
        raised: BaseException | None,
        result: Any,
        ended: float,
        row: ClaimedJob,
        *,
        committed: bool,
    ) -> Outcome:
        """Return the outcome of the attempt; after an interrupt the state of the process is unknown."""
        if raised is None:
            return self._conclusions.returned(
                job, task, policy, result, ended, hook=bool(row.flags & HOOK), committed=committed
            )
        interrupted_by_us, timed_out = self.interrupted == job.id, self._gate.fired == job.deadline_at
        interrupted = interrupt_of(raised, ours=interrupted_by_us or timed_out) is not None
        if interrupted:
            self.tainted = True
        return self._conclusions.raised(
            job, task, policy, raised, ended, row, interrupted=interrupted,
            interrupted_by_us=interrupted_by_us, timed_out=timed_out,
            lost=self._connection.lost if job.borrowed_connection is not None else None,
        )  # fmt: skip

    def _complete(self, job: RunningJob, token: int, ended: float, result: Any) -> bool:
        """Write the end of the job in the transaction of its work."""
        return self._claims.complete(
            job.connection, token, job.id, duration=ended - job.started, result=self._conclusions.encode(result)
        )

    def _begin_bookkeeping(self, claim: Claim, index: int, job_id: int) -> None:
        """Enter a job as running before its handler runs, where the content of its row takes part in what is done.

        If this process does not survive that, the job is charged like a running one; it must not kill every worker.
        """
        self.current = job_id
        floats = self._slot.floats
        now = monotonic()
        floats[Slot.DEADLINE], floats[Slot.STARTED], floats[Slot.SLOW_AT] = now + BOOKKEEPING_TIMEOUT, now, inf
        claim.statuses[index] = Status.RUNNING

    def _release_unknown(self, claim: Claim, index: int, job_id: int, name: str, unknown_task_count: int) -> None:
        """Release a job whose task this worker does not know: another version may know it."""
        delay = min(_UNKNOWN_TASK_LONGEST, _UNKNOWN_TASK_FIRST * 2.0 ** min(max(unknown_task_count, 0), 20))
        self._begin_bookkeeping(claim, index, job_id)
        self._log.warning("job.unknown_task", job=job_id, task=name, again_in=delay, known=len(self._tasks),
                          hint="is the module that defines it imported by the application?")  # fmt: skip
        self._header.words[Header.UNKNOWN_TASK] = True
        self._submit(claim, index, job_id, Snoozed(delay, unknown_task=True))
        self.current = 0

    def close(self) -> None:
        """Close the handlers' connection, and send the remaining reports."""
        self._connection.close()
        self._reporter.close(LAST_REPORTS)

    def _progress(self, job_id: int, text: str) -> None:
        if self._claim is not None and job_id == self.current:
            self._acknowledger.progress = (self._claim, job_id, text)
