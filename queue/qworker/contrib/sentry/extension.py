"""`Sentry`: a scope and a transaction for each attempt; failures, deaths of processes, and check-ins of schedules."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from threading import Thread
from time import monotonic
from typing import Any

import sentry_sdk
from sentry_sdk.integrations.logging import ignore_logger
from sentry_sdk.scope import use_isolation_scope

from qworker.app import App
from qworker.context import RunningJob
from qworker.contrib.failures import ignored
from qworker.contrib.sentry.enqueuing import BAGGAGE, ORIGIN, TRACE, PublishingEnqueuer
from qworker.errors import CancelInterrupt, JobFailed, ShutdownInterrupt, Snooze
from qworker.job import Job
from qworker.middleware import OncePerProcess
from qworker.origins import Origin, Origins

#: Time for events that are not sent yet when a process ends (seconds).
FLUSH_TIMEOUT = 2.0
#: The logger to which nodes report all failed attempts (`qworkerd.log.ATTEMPTS`), also those that are retried.
ATTEMPTS = "qworker.job"
#: Maximum number of scopes that wait for the report of their attempt.
MAX_SCOPES = 100
#: What leaves a handler although its attempt has not failed.
_NOT_FAILED = (Snooze, ShutdownInterrupt, CancelInterrupt)


class Sentry:
    """Reports the jobs of an application to Sentry.

    setup is called in each worker process before it claims jobs, and in the scheduler before its first event: it calls
    `sentry_sdk.init`, whose thread must not be started before a fork. retries: also report failed attempts that are
    followed by another one, as warnings; by default they are breadcrumbs of the last one. check_ins: report jobs of
    schedules to the monitors of Sentry Crons.
    """

    def __init__(
        self, app: App, *, setup: Callable[[], object] | None = None, retries: bool = False, check_ins: bool = False
    ) -> None:
        self.app = app
        self._set_up = OncePerProcess(setup)
        self._retries = retries
        self._check_ins = check_ins
        #: The scopes of attempts that have failed and are not reported yet, by job.
        self._scopes: dict[int, sentry_sdk.Scope] = {}
        self._origins = app.origins = app.origins or Origins(app.schema)
        ignore_logger(ATTEMPTS)
        app.replace_enqueuing(PublishingEnqueuer(app.enqueuing))
        app.middleware(self._around_job)
        app.on_worker_start(self._set_up)
        app.on_worker_stop(_flush)
        app.on_error(self._report)

    # Attempts

    def _around_job(self, job: RunningJob, call_next: Callable[[], Any]) -> Any:
        if not sentry_sdk.get_client().is_active():
            return call_next()
        origin = self._origins.of(job.id)
        with sentry_sdk.isolation_scope() as scope, self._checked_in(origin):
            scope.clear_breadcrumbs()
            _describe(scope, job, job.attempt)
            with _transaction(job, origin):
                try:
                    return call_next()
                except _NOT_FAILED:
                    raise
                except BaseException:
                    self._keep(job.id, scope)
                    raise

    def _keep(self, job: int, scope: sentry_sdk.Scope) -> None:
        while len(self._scopes) >= MAX_SCOPES:
            with suppress(KeyError, StopIteration, RuntimeError):  # the thread of reports takes them
                self._scopes.pop(next(iter(self._scopes)))
        self._scopes[job] = scope

    @contextmanager
    def _checked_in(self, origin: Origin) -> Iterator[None]:
        """Tell the monitor of a schedule that its job has begun, and how it has ended."""
        schedule = self.app.schedules.get(origin.schedule or "") if self._check_ins and not origin.hook else None
        if schedule is None:
            yield
            return
        config: Any = {"schedule": {"type": "crontab", "value": schedule.expression}, "timezone": schedule.timezone}
        begun, check_in, status = monotonic(), None, "ok"
        with ignored("a check-in"):
            check_in = sentry_sdk.crons.capture_checkin(schedule.name, status="in_progress", monitor_config=config)
        try:
            yield
        except BaseException as error:
            status = "ok" if isinstance(error, _NOT_FAILED) else "error"
            raise
        finally:
            with ignored("a check-in"):
                sentry_sdk.crons.capture_checkin(schedule.name, check_in, status, monotonic() - begun, config)

    # Reports

    def _report(self, job: Job, error: JobFailed) -> None:
        """Report a failed attempt, in the thread of the reports; that of a process that has died, in the scheduler."""
        scope = self._scopes.pop(job.id, None)
        final, died = job.finished, error.__cause__ is None and error.cause is not None
        if not (final or died or self._retries):
            return
        if died:
            self._set_up()
        with use_isolation_scope(scope or sentry_sdk.get_isolation_scope().fork()) as found:
            _describe(found, job, error.attempt)
            if fingerprint := (job.errors[-1] if job.errors else {}).get("fingerprint"):
                found.fingerprint = [str(fingerprint)]
            found.set_level("error" if final or died else "warning")
            for earlier in self._earlier(job, error):
                found.add_breadcrumb(earlier)
            if error.__cause__ is not None:
                sentry_sdk.capture_exception(error.__cause__)
            else:
                with ignored("the trace of a job"):
                    sentry_sdk.continue_trace(_headers(Origin.of(job.meta)))
                _capture_death(found, job, error)
        if died:
            _flush()

    def _earlier(self, job: Job, error: JobFailed) -> Iterator[dict[str, Any]]:
        """Yield the attempts that have failed before, as breadcrumbs."""
        if error.attempt <= 1:
            return
        try:
            errors = self.app.job(job.id).errors
        except Exception:  # noqa: BLE001 - without a database the event is reported without them
            return
        for found in errors:
            attempt = found.get("attempt")
            if isinstance(attempt, int) and attempt < error.attempt:
                yield {
                    "category": "qworker.attempt", "level": "warning", "timestamp": found.get("at"),
                    "message": f"attempt {attempt} failed: {found.get('type')}: {found.get('message')}",
                }  # fmt: skip


@contextmanager
def _transaction(job: RunningJob, origin: Origin) -> Iterator[None]:
    """Open a transaction that continues the trace of who has enqueued the job, and the span that Sentry counts."""
    transaction = sentry_sdk.continue_trace(
        _headers(origin), op="queue.task", name=job.task, source="task", origin=ORIGIN
    )
    age = max(0.0, datetime.now(UTC).timestamp() - job.enqueued_at.timestamp())
    with (
        sentry_sdk.start_transaction(transaction),
        sentry_sdk.start_span(op="queue.process", name=job.task, origin=ORIGIN) as span,
    ):
        span.set_data("messaging.system", "qworker")
        span.set_data("messaging.message.id", str(job.id))
        span.set_data("messaging.destination.name", job.queue)
        span.set_data("messaging.message.retry.count", job.attempt - 1)
        span.set_data("messaging.message.receive.latency", round(1000 * age, 3))
        left: BaseException | None = None
        try:
            yield
        except _NOT_FAILED as error:  # would be an error for the SDK
            left = error
        transaction.set_status("ok")
    if left is not None:
        raise left


def _headers(origin: Origin) -> dict[str, str]:
    """Return the headers by which the SDK continues the trace of who has enqueued a job."""
    headers = {"sentry-trace": origin.carrier.get(TRACE, ""), "baggage": origin.carrier.get(BAGGAGE, "")}
    return {name: value for name, value in headers.items() if value}


def _describe(scope: sentry_sdk.Scope, job: RunningJob | Job, attempt: int) -> None:
    scope.set_transaction_name(job.task, source="task")
    scope.set_tag("qworker.task", job.task)
    scope.set_tag("qworker.queue", job.queue)
    scope.set_context("qworker", {"job": job.id, "task": job.task, "queue": job.queue, "attempt": attempt})


def _capture_death(scope: sentry_sdk.Scope, job: Job, error: JobFailed) -> None:
    """Report an attempt whose process has ended, with what is known of the process: its stacks."""
    scope.set_tag("qworker.cause", error.cause)
    if error.traceback:
        scope.set_extra("stacks", error.traceback)
        scope.add_attachment(bytes=error.traceback.encode("utf-8", "replace"), filename="stacks.txt")
    value = {"type": error.type, "value": error.message, "mechanism": {"type": "qworker", "handled": False}}
    event: Any = {"exception": {"values": [value]}, "transaction": job.task}
    sentry_sdk.capture_event(event)


def _flush() -> None:
    """Send what waits, because the process is about to end; a transport of the application may ignore the limit."""
    thread = Thread(target=_flush_all, name="sentry-flush", daemon=True)
    thread.start()
    thread.join(FLUSH_TIMEOUT)


def _flush_all() -> None:
    with ignored("sending events"):
        sentry_sdk.flush(timeout=FLUSH_TIMEOUT)
