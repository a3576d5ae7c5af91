"""Concludes attempts: decides the outcome, and logs and reports a failure after the outcome is stored."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from qworker import Task
from qworker.claims import ClaimedJob
from qworker.context import RunningJob
from qworker.errors import Interrupt
from qworker.job import JobState
from qworker.payload import encode_result
from qworkerd import log
from qworkerd.config.policy import Policy
from qworkerd.log import jobs
from qworkerd.log.job_lines import job_lines
from qworkerd.outcomes.decide import decide, describe_failure
from qworkerd.outcomes.outcome import Committed, Completed, Failed, Outcome, Retried, Session, Snoozed, Terminated
from qworkerd.outcomes.reports import Failure, Reporter


class Conclusions:
    """Decides the outcomes of attempts, and logs them.

    The outcome of an attempt that raised an exception is stored before it is logged. If the worker is killed in
    between, the job is still settled as the log says: no crash is counted, and the job does not run again at once.
    """

    def __init__(self, reporter: Reporter, store: Callable[[Outcome], None]) -> None:
        self._reporter = reporter
        self._store = store
        self._log = log.get()
        self._warned: set[str] = set()

    def returned(
        self, job: RunningJob, task: Task[..., Any], policy: Policy, result: Any, ended: float, *,
        hook: bool, committed: bool,
    ) -> Outcome:  # fmt: skip
        """Return the outcome of an attempt whose handler returned."""
        duration = ended - job.started
        if task.transactional and not committed and not hook:
            self._warn_of_other_connections(task.name)
        if ended > job.deadline_at:
            self._log.warning("job.finished_late", duration=round(duration, 3), timeout=policy.timeout)
        return Committed(duration) if committed else Completed(duration, self.encode(None if hook else task, result))

    def raised(
        self, job: RunningJob, task: Task[..., Any], policy: Policy, error: BaseException, ended: float,
        row: ClaimedJob, *, interrupted: bool, sent: type[Interrupt] | None, timed_out: bool, lost: Session | None,
    ) -> Outcome:  # fmt: skip
        """Return the outcome of an attempt that raised an exception.

        sent: the interrupt that the worker has raised in it because of a signal. lost: the session of its connection,
        if the connection was lost before the commit was confirmed.
        """
        duration, hook = ended - job.started, row.is_hook
        if hook and not interrupted:
            record = describe_failure(error, job.task, job.attempt) | job_lines.pop(job) | _duration(duration)
            discarded = Terminated(JobState.DISCARDED, duration, _traced(record, job))
            self._store(discarded)
            self._log.error("job.hook_failed", error=jobs.summary(record), exc_info=error)
            self._report(discarded, row, error)
            return discarded
        outcome = decide(
            error, job, policy, sent=sent, timed_out=timed_out, duration=duration,
            hook=task.hook is not None and not hook,
        )  # fmt: skip
        if isinstance(outcome, Retried | Failed | Terminated):
            outcome.error.update(job_lines.pop(job) | _duration(duration))
        if isinstance(outcome, Retried | Failed):
            outcome = replace(outcome, error=_traced(outcome.error, job), lost=lost)
        self._store(outcome)
        self._log_outcome(outcome, row, error, duration, policy)
        if isinstance(outcome, Retried | Failed):
            self._report(outcome, row, error)
        return outcome

    def encode(self, task: Task[..., Any] | None, result: Any) -> str | None:
        """Encode the result. If it cannot be stored, it is dropped: the work is done and must not be repeated."""
        try:
            if task is not None and task.conversion is not None:
                result = task.conversion.dump_result(result)
            return encode_result(result)
        except Exception as error:  # noqa: BLE001 - a codec is code of the application, and may raise anything
            self._log.warning("job.result_dropped", error=str(error) or type(error).__name__)
            return None

    def _log_outcome(
        self, outcome: Outcome, row: ClaimedJob, raised: BaseException, duration: float, policy: Policy
    ) -> None:
        match outcome:
            case Retried(delay, error):
                jobs.retried(self._log, row, error, duration=duration, max_attempts=policy.max_attempts, retry_in=delay)
            case Failed(error):
                jobs.failed(self._log, row, error, duration=duration, raised=raised)
            case Snoozed(delay):
                jobs.snoozed(self._log, row, duration=duration, delay=delay)
            case Terminated(_, _, error):
                jobs.cancelled(self._log, row, error, duration=duration)
            case _:
                jobs.interrupted(self._log, row, duration=duration)

    def _report(self, outcome: Retried | Failed | Terminated, row: ClaimedJob, raised: BaseException) -> None:
        """Report a failed attempt of a job or a failure hook."""
        self._reporter.submit(Failure(
            row.id, row.task, row.queue, row.attempt, outcome.error,
            final=not isinstance(outcome, Retried), raised=raised, args=row.args, priority=row.priority,
        ))  # fmt: skip

    def _warn_of_other_connections(self, task: str) -> None:
        """Warn once that a transactional handler has not used the connection of its transaction."""
        if task not in self._warned:
            self._warned.add(task)
            self._log.warning(
                "job.not_transactional",
                hint="the handler did not use current_job.connection; what it does on others (Django's, SQLAlchemy's) "
                "is not part of the job's transaction",
            )


def _duration(seconds: float) -> dict[str, Any]:
    """Return how long the attempt ran, from which pages compute when it began."""
    return {"ran": round(seconds, 3)}


def _traced(record: dict[str, Any], job: RunningJob) -> dict[str, Any]:
    """Add the trace of the attempt, if there is one, to which the next attempt is linked."""
    trace = getattr(job, "trace", None)
    return record if trace is None else record | {"traceparent": trace}
