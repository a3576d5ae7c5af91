"""Runs the jobs of a claim: records each in the slot, executes it, stores and submits its outcome."""

import json
from math import inf
from time import monotonic

from qworker.backoff import Backoff
from qworker.claims import ClaimedJob, Claims
from qworker.context import RunningJob
from qworker.job_logs import AttemptLines
from qworkerd import log
from qworkerd.config.policy import Policies
from qworkerd.log.job_lines import job_lines
from qworkerd.outcomes.outcome import Committed, Completed, Outcome, Snoozed, dump, without_logs
from qworkerd.outcomes.reports import Reporter
from qworkerd.shared.claim import Claim, Status
from qworkerd.shared.context import NodeContext
from qworkerd.shared.header import Header
from qworkerd.shared.slots import Slot
from qworkerd.worker.acknowledger import Acknowledger
from qworkerd.worker.execution import Execution
from qworkerd.worker.interrupts import InterruptGate
from qworkerd.worker.job_connection import JobConnection

#: Time allowed for unsent reports when the process ends (seconds).
LAST_REPORTS = 2.0
#: The delay of a job whose task is unknown.
_UNKNOWN_TASK = Backoff(5.0, 3600.0)
#: Deadline for releasing such a job, and for reading the overrides of a job (seconds).
BOOKKEEPING_TIMEOUT = 10.0

#: How long a job waits for space for its outcome in the slot (seconds).
_SPACE_TIMEOUT = 1.0

# A memoryview takes a plain integer at once, and an enumeration's member in 0.1 us.
_RUNNING, _SUCCEEDED, _DONE = int(Status.RUNNING), int(Status.SUCCEEDED), int(Status.DONE)


class Runner:
    """Calls handlers, and submits their outcomes to the acknowledger."""

    def __init__(
        self, node: NodeContext, slot: Slot, gate: InterruptGate, acknowledger: Acknowledger, reporter: Reporter
    ) -> None:
        self._tasks = node.app.tasks
        self._policies = Policies(node.settings)
        self._grace = node.settings.kill_grace
        self._header = node.table.header
        self._slot = slot
        self._acknowledger = acknowledger
        self._claims = Claims(node.settings.schema)
        self._connection = JobConnection(node, slot)
        self._reporter = reporter
        self._execution = Execution(
            node.app, gate, self._connection, self._reporter, complete=self._complete, progress=self._progress,
            store=self._store_raised, job_type=_job_type(slot), verbose=node.settings.log_level == "debug",
        )  # fmt: skip
        job_lines.attach(slot.lines)
        self._keeps_all_lines = node.settings.job_logs == "all"
        self._log = log.get()
        self._claim: Claim | None = None
        #: The job whose handler is running; 0 outside of handlers.
        self.current = 0
        #: Whether a handler was interrupted: the state of the process is unknown, and it is replaced.
        self.tainted = False

    def run(self, claim: Claim, index: int, row: ClaimedJob, now: float) -> float:
        """Run one job of a claim; return the time at which it ended (monotonic)."""
        job_id, name, overrides = row.id, row.task, row.overrides
        task = self._tasks.get(name)
        if task is None:
            self._release_unknown(claim, index, job_id, name, row.unknown_task_count)
            return now
        policy = self._policies.by_task.get(name)
        if policy is None or overrides:
            if overrides:
                self._begin_bookkeeping(claim, index, job_id)
            policy = self._policies.find(task, overrides)
        self._claim = claim
        self.current = job_id
        # The status is stored last: once it is RUNNING, all other fields belong to this job.
        floats = self._slot.floats
        floats[Slot.DEADLINE] = now + policy.timeout + self._grace
        floats[Slot.SLOW_AT] = now + policy.slow_after
        floats[Slot.STARTED] = now
        claim.statuses[index] = _RUNNING
        outcome, ended = self._execution.run(task, policy, row, now)
        if (logged := job_lines.owner) is not None and logged.started == now:
            self._keep_lines(claim, logged)
        if outcome is None:
            claim.statuses[index] = _SUCCEEDED
            self._acknowledger.submit(claim, job_id, None)
        else:
            self.tainted = self._execution.tainted
            if isinstance(outcome, Completed | Committed):
                self._store(claim, index, outcome)
            self._acknowledger.submit(claim, job_id, outcome)
        self.current = 0
        return ended

    def _keep_lines(self, claim: Claim, job: RunningJob) -> None:
        """Store the log lines of an attempt that did not fail, if all are stored, or they are followed."""
        if self._keeps_all_lines or self._slot.words[Slot.FOLLOWED] == job.id:
            found = job_lines.pop(job)
            self._acknowledger.lines.add(AttemptLines(
                job.id, claim.token, job.attempt, found.get("logs_dropped", 0), json.dumps(found["logs"])
            ))  # fmt: skip

    def _store_raised(self, outcome: Outcome) -> None:
        """Store the outcome of the running job."""
        if self._claim is not None and (index := self._claim.running_index()) is not None:
            self._store(self._claim, index, outcome)

    def _store(self, claim: Claim, index: int, outcome: Outcome) -> None:
        """Store an outcome in the slot, where it survives this process."""
        if isinstance(outcome, Completed) and outcome.result is None:
            claim.statuses[index] = _SUCCEEDED
            return
        # A committed job needs no further write.
        if not isinstance(outcome, Committed):
            record = dump(outcome)
            if not claim.store_outcome(index, record):
                # The acknowledger has the log lines too; they are lost only if this process is killed before it writes.
                record = dump(without_logs(outcome))
                if not claim.store_outcome(index, record):
                    self._free_space(claim, index, record)
        claim.statuses[index] = _DONE

    def _free_space(self, claim: Claim, index: int, record: bytes) -> None:
        """Free the space of earlier outcomes by writing them to the database, if possible; then store the record."""
        floats = self._slot.floats
        floats[Slot.DEADLINE] = max(floats[Slot.DEADLINE], monotonic() + _SPACE_TIMEOUT + self._grace)
        self._acknowledger.flush(_SPACE_TIMEOUT)
        if self._acknowledger.is_done:
            claim.clear_outcomes(index)
            claim.store_outcome(index, record)

    def _complete(self, job: RunningJob, duration: float, result: str | None) -> bool:
        """Write the end of a job in its transaction; return False if the claim no longer holds the job."""
        token = self._claim.token if self._claim is not None else 0
        return self._claims.complete(job.connection, token, job.id, duration=duration, result=result)

    def _begin_bookkeeping(self, claim: Claim, index: int, job_id: int) -> None:
        """Record a job as running before its handler runs, for a step that depends on the contents of its row.

        If the step kills this process, a crash of the job is counted. Otherwise the job would kill one worker after
        another.
        """
        self.current = job_id
        floats = self._slot.floats
        now = monotonic()
        floats[Slot.DEADLINE], floats[Slot.STARTED], floats[Slot.SLOW_AT] = now + BOOKKEEPING_TIMEOUT, now, inf
        claim.statuses[index] = _RUNNING

    def _release_unknown(self, claim: Claim, index: int, job_id: int, name: str, unknown_task_count: int) -> None:
        """Release a job whose task this worker does not know: another version may know it."""
        delay = _UNKNOWN_TASK.delay(unknown_task_count + 1)
        self._begin_bookkeeping(claim, index, job_id)
        self._log.warning("job.unknown_task", job=job_id, task=name, retry_in=delay, known=len(self._tasks),
                          hint="is the module that defines it imported by the application?")  # fmt: skip
        self._header.words[Header.UNKNOWN_TASK] = True
        outcome = Snoozed(delay, unknown_task=True)
        self._store(claim, index, outcome)
        self._acknowledger.submit(claim, job_id, outcome)
        self.current = 0

    def close(self) -> None:
        """Close the handlers' connection, and send the remaining reports."""
        self._connection.close()
        self._reporter.close(LAST_REPORTS)

    def _progress(self, job_id: int, text: str) -> None:
        if self._claim is not None and job_id == self.current:
            self._acknowledger.progress = (self._claim, job_id, text)


def _job_type(slot: Slot) -> type[RunningJob]:
    """Return the type of the jobs that run in a slot. Without tracing, they cost no more than others."""

    class SlotJob(RunningJob):
        """An attempt whose trace is kept in the slot, where it survives this process."""

        __slots__ = ()

        def set_trace(self, traceparent: str) -> None:
            """Set the traceparent."""
            super().set_trace(traceparent)
            slot.set_trace(self.started, traceparent)

    return SlotJob
