"""Reports failed attempts to `logging`, and so to error trackers, and to the application's hooks."""

import json
import logging
import queue
import signal
import threading
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from qworker import App
from qworker.errors import JobFailed
from qworker.findings import Finding
from qworker.job import Job, JobState, new_job
from qworker.recovery import LostJob
from qworkerd import log
from qworkerd.log import jobs
from qworkerd.outcomes.record import now

#: Maximum number of reports that wait in a process. Further ones are dropped and counted.
MAX_REPORTS = 1000


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt."""

    job: int
    task: str
    queue: str
    attempt: int
    #: The error record that is stored with the job.
    error: dict[str, Any]
    #: Whether this was the last attempt.
    final: bool
    #: The exception that the handler raised; None if its process died.
    raised: BaseException | None = None
    #: The arguments as JSON; None if they must be read from the database.
    args: str | None = None
    priority: int = 5


@dataclass(frozen=True, slots=True)
class Ended:
    """Jobs that a write has ended, or may have ended."""

    jobs: list[int]


@dataclass(frozen=True, slots=True)
class Found:
    """A finding of a check, or its end."""

    finding: Finding
    resolved: bool


class Reporter:
    """Reports in a separate thread, so that neither jobs nor the lease wait for an error tracker.

    Each attempt is reported at most once. If the process is killed, waiting reports are lost; the errors that are
    stored with the jobs are not.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._reports: queue.Queue[Failure | Ended | Found | None] = queue.Queue(MAX_REPORTS)
        self._thread: threading.Thread | None = None
        #: Taken to start the thread: the main thread and the acknowledger submit reports.
        self._starting = threading.Lock()
        self._dropped = 0
        #: What the handlers of jobs raised whose end is not stored yet, for the hooks of `App.on_end`. The end of a job
        #: whose claim was lost is never reported.
        self._raised: dict[int, BaseException] = {}
        self._log = log.get()
        # Only after the application has configured logging, because dictConfig disables existing loggers.
        self._logger = logging.getLogger(log.ATTEMPTS)

    def submit(self, failure: Failure) -> None:
        """Queue the report of a failed attempt; returns at once, and raises no error."""
        self._keep_raised(failure)
        self._put(failure, failure.job)

    def _keep_raised(self, failure: Failure) -> None:
        if failure.final and failure.raised is not None and self._app.end_hooks:
            if len(self._raised) >= MAX_REPORTS:
                with suppress(RuntimeError):  # the thread of reports has removed another one meanwhile
                    self._raised.pop(next(iter(self._raised), 0), None)
            self._raised[failure.job] = failure.raised

    def ended(self, jobs: Iterable[int]) -> None:
        """Queue the jobs that a write has changed for the hooks of `App.on_end`; returns at once."""
        if self._app.end_hooks and (changed := list(jobs)):
            self._put(Ended(changed), changed[0])

    def finding(self, finding: Finding, *, resolved: bool) -> None:
        """Queue a finding for the hooks of `App.on_finding`; returns at once."""
        if self._app.finding_hooks:
            self._put(Found(finding, resolved), None)

    def _put(self, report: Failure | Ended | Found, job: int | None) -> None:
        try:
            if self._thread is None:
                with self._starting:
                    if self._thread is None:
                        self._start()
            self._reports.put_nowait(report)
        except (queue.Full, RuntimeError) as error:  # no further thread can be started
            self._dropped += 1
            if self._dropped.bit_count() == 1:  # the 1st, 2nd, 4th, 8th ...
                self._log.warning("report.dropped", job=job, dropped_so_far=self._dropped,
                                  reason=str(error) or f"{MAX_REPORTS} reports are waiting")  # fmt: skip

    def submit_losses(self, released: Iterable[LostJob], error: dict[str, Any]) -> None:
        """Report jobs that were lost with their node or worker. The attempt failed, although it is not counted."""
        for job in released:
            lost = job._replace(attempt=job.attempt + 1)
            record = error | {"attempt": lost.attempt}
            if final := job.state == JobState.FAILED:
                jobs.failed(self._log, lost, record, duration=error.get("ran"))
            self.submit(
                Failure(job=lost.id, task=lost.task, queue=lost.queue, attempt=lost.attempt, error=record, final=final)
            )
            if final:
                self.ended([lost.id])

    def close(self, timeout: float) -> None:
        """Wait up to `timeout` seconds until all reports are sent."""
        if self._thread is not None:
            try:
                self._reports.put(None, timeout=timeout)
            except queue.Full:
                return
            self._thread.join(timeout)

    def _start(self) -> None:
        thread = threading.Thread(target=self._serve, name="reports", daemon=True)
        # Signals are handled by the main thread; one delivered to this thread would not interrupt the main thread.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._thread = thread

    def _serve(self) -> None:
        while (failure := self._reports.get()) is not None:
            if isinstance(failure, Ended):
                try:
                    self._to_end_hooks(failure.jobs)
                except BaseException as error:  # noqa: BLE001 - without this thread nothing more would be reported
                    self._log.error("report.error", job=failure.jobs[0], where="on_end", exc_info=error)
                continue
            if isinstance(failure, Found):
                self._to_finding_hooks(failure)
                continue
            for report in (self._to_logging, self._to_hooks):
                try:
                    report(failure)
                except BaseException as error:  # noqa: BLE001 - the application's code may raise anything
                    self._log_error(failure, report.__name__.removeprefix("_to_"), error)

    def _to_finding_hooks(self, found: Found) -> None:
        for hook in self._app.finding_hooks:
            try:
                hook(found.finding, found.resolved)
            except BaseException as error:  # noqa: BLE001 - as above
                self._log.error("report.error", check=found.finding.check, where="on_finding", exc_info=error)

    def _to_logging(self, failure: Failure) -> None:
        """Log an error with the exception, for the application's logging handlers."""
        error = failure.error
        self._logger.error(
            "job %s (%s): attempt %s failed%s: %s: %s",
            failure.job, failure.task, failure.attempt, ", the last" if failure.final else "", error["type"],
            error["message"],
            exc_info=failure.raised,
            extra={"job_id": failure.job, "task": failure.task, "queue": failure.queue, "attempt": failure.attempt,
                   "cause": error.get("cause"), "final": failure.final},
        )  # fmt: skip

    def _to_hooks(self, failure: Failure) -> None:
        hooks = self._app.error_hooks
        if not hooks:
            return
        job = self._job(failure)
        for hook in hooks:
            error = JobFailed(failure.job, failure.error)
            error.__cause__ = failure.raised
            try:
                _call(hook, job, error)
            except BaseException as broken:  # noqa: BLE001 - the other hooks must still be called
                self._log_error(failure, getattr(hook, "__qualname__", repr(hook)), broken)

    def _to_end_hooks(self, ids: list[int]) -> None:
        """Call the hooks with those of the jobs that have ended."""
        raised = {job: error for job in ids if (error := self._raised.pop(job, None)) is not None}
        ended = [job for job in self._app.admin.show_many(ids) if job.finished]
        for job in ended:
            lost = JobFailed(job.id, job.errors[-1]) if job.errors and job.state is not JobState.COMPLETED else None
            for hook in self._app.end_hooks:
                try:
                    _call(hook, job, raised.get(job.id, lost))
                except BaseException as error:  # noqa: BLE001 - the other hooks must still be called
                    self._log.error(
                        "report.error", job=job.id, task=job.task, where=getattr(hook, "__qualname__", repr(hook)),
                        exc_info=error,
                    )  # fmt: skip

    def _log_error(self, failure: Failure, where: str, error: BaseException) -> None:
        self._log.error("report.error", job=failure.job, task=failure.task, where=where, exc_info=error)

    def _job(self, failure: Failure) -> Job:
        """Return the job for the hooks; it is read from the database only if its arguments are not known."""
        if failure.args is None:
            try:
                return self._app.job(failure.job)
            except Exception as error:  # noqa: BLE001 - no database, or the job has been deleted meanwhile
                self._log.info("report.incomplete", job=failure.job, error=str(error).strip())
        return new_job(
            id=failure.job,
            state=JobState.FAILED if failure.final else JobState.SCHEDULED,
            queue=failure.queue,
            priority=failure.priority,
            task=failure.task,
            args=json.loads(failure.args or "{}"),
            attempt=failure.attempt,
            errors=({"at": now(), **failure.error},),
            _actions=self._app.admin,
        )


def _call(hook: Callable[[Job, Any], object], job: Job, error: BaseException | None) -> None:
    """Call a hook; raises TypeError if a decorator has returned a coroutine that nobody awaits."""
    returned = hook(job, error)
    if isinstance(returned, Coroutine):
        returned.close()  # otherwise Python warns that it was never awaited
        raise TypeError("the hook returned a coroutine, which has not been run: call asyncio.run(...) in it")
