"""`Tracing`: spans around enqueueing and around each attempt, and for attempts whose process was killed."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from threading import Thread
from typing import Any

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.propagate import extract
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, Tracer, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from qworker.app import App
from qworker.context import RunningJob
from qworker.contrib.failures import ignored
from qworker.contrib.tracing import attributes
from qworker.contrib.tracing.enqueuing import TracedEnqueuer
from qworker.errors import CancelInterrupt, JobFailed, ShutdownInterrupt, Snooze
from qworker.job import Job
from qworker.middleware import OncePerProcess
from qworker.origins import Origin, Origins

#: Time for spans that are not exported yet when a worker ends (seconds).
FLUSH_TIMEOUT = 5.0
#: What leaves a handler although its attempt has not failed.
_NOT_FAILED = ((Snooze, "snoozed"), (ShutdownInterrupt, "released"), (CancelInterrupt, "cancelled"))

_traceparent = TraceContextTextMapPropagator()


class Tracing:
    """Traces the jobs of an application by OpenTelemetry.

    setup is called in each worker process before it claims jobs, and in the scheduler before its first span: it
    configures the SDK, whose threads and connections must not be inherited by a fork. parent_max_age: seconds after
    which the span of a job is not a child of the span that enqueued it, but the root of a trace of its own; 0: always.
    It is linked to the span that enqueued it in any case.
    """

    def __init__(
        self,
        app: App,
        *,
        setup: Callable[[], object] | None = None,
        parent_max_age: float = 3600.0,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        if parent_max_age < 0:
            raise ValueError(f"parent_max_age must be 0 (always a new trace) or more seconds, not {parent_max_age!r}")
        self.app = app
        self._set_up = OncePerProcess(setup)
        self._max_age = parent_max_age
        self._provider = tracer_provider
        self._tracer = trace.get_tracer("qworker", tracer_provider=tracer_provider)
        self._origins = app.origins = app.origins or Origins(app.schema)
        app.replace_enqueuing(TracedEnqueuer(app.enqueuing, self._tracer))
        app.middleware(self._around_job)
        app.on_worker_start(self._set_up)
        app.on_worker_stop(self._flush)
        app.on_error(self._report_death)

    # Attempts

    def _around_job(self, job: RunningJob, call_next: Callable[[], Any]) -> Any:
        origin = self._origins.of(job.id)
        age = max(0.0, datetime.now(UTC).timestamp() - job.enqueued_at.timestamp())
        parent, links = self._relations(origin, age)
        values: dict[str, Any] = attributes.processing(job.id, job.task, job.queue, job.attempt)
        values[attributes.AGE] = round(age, 3)
        if origin.schedule is not None:
            values[attributes.SCHEDULE] = origin.schedule
        if origin.hook:
            values[attributes.HOOK] = True
        else:
            values[attributes.FUNCTION] = _function(self.app, job.task)
        span: Span = trace.INVALID_SPAN
        with ignored("the start of a span"):
            span = self._tracer.start_span(
                attributes.run_span(job.task), context=parent, kind=SpanKind.CONSUMER, links=links, attributes=values
            )
        found = span.get_span_context()
        if found.is_valid:
            job.set_trace(f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}")
        with _current(span, parent):
            return call_next()

    def _relations(self, origin: Origin, age: float) -> tuple[Context, list[Link]]:
        """Return the context in which a span begins, and the spans to which it is linked."""
        parent = Context()
        with ignored("a propagator"):
            parent = extract(origin.carrier, context=Context())
        spans = [trace.get_current_span(parent).get_span_context()]
        if origin.failed is not None:
            failed = _traceparent.extract({"traceparent": origin.failed}, context=Context())
            spans.append(trace.get_current_span(failed).get_span_context())
        if age >= self._max_age:
            parent = trace.set_span_in_context(trace.INVALID_SPAN, parent)  # keeps the baggage
        return parent, [Link(span) for span in spans if span.is_valid]

    # Processes

    def _flush(self) -> None:
        """Export the spans that wait, because the process is about to end.

        The SDK may wait for its exporter for longer than this limit (since 1.31 for as long as the export takes).
        """
        provider = self._provider or trace.get_tracer_provider()
        if (flush := getattr(provider, "force_flush", None)) is not None:
            thread = Thread(target=flush, args=(int(FLUSH_TIMEOUT * 1000),), name="tracing-flush", daemon=True)
            thread.start()
            thread.join(FLUSH_TIMEOUT)

    def _report_death(self, job: Job, error: JobFailed) -> None:
        """Trace an attempt whose process has ended, and with it the span: it is found out by the scheduler.

        The span has the ids of the one that was lost: log lines, the spans inside it and the next attempt refer to it.
        """
        if error.cause is None or error.__cause__ is not None:
            return
        self._set_up()
        record = job.errors[-1] if job.errors else {}
        ran = record.get("ran")
        end = time.time_ns()
        enqueued = end / 1e9 if job.enqueued_at is None else job.enqueued_at.timestamp()
        parent, links = self._relations(Origin.of(job.meta), end / 1e9 - enqueued)
        values = attributes.processing(job.id, job.task, job.queue, error.attempt)
        values |= {attributes.ERROR_TYPE: error.type, attributes.CAUSE: error.cause}
        span = self._tracer_of(record.get("traceparent")).start_span(
            attributes.run_span(job.task), context=parent, kind=SpanKind.CONSUMER, links=links, attributes=values,
            start_time=end - int(1e9 * ran) if isinstance(ran, int | float) else end,
        )  # fmt: skip
        span.add_event(attributes.EXCEPTION_EVENT, {
            attributes.EXCEPTION_TYPE: error.type, attributes.EXCEPTION_MESSAGE: error.message,
            attributes.EXCEPTION_STACKTRACE: error.traceback,
        })  # fmt: skip
        span.set_status(Status(StatusCode.ERROR, error.message))
        span.end(end)
        self._flush()

    def _tracer_of(self, traceparent: object) -> Tracer:
        """Return a tracer whose next span has the ids of a traceparent, if the SDK lets its ids be chosen."""
        tracer = trace.get_tracer("qworker", tracer_provider=self._provider)
        known = _traceparent.extract({"traceparent": str(traceparent)}, context=Context())
        lost = trace.get_current_span(known).get_span_context()
        if lost.is_valid and hasattr(tracer, "id_generator"):
            tracer.id_generator = _KnownIds(lost)
        return tracer


class _KnownIds:
    """Gives a span the ids of a known one: see `opentelemetry.sdk.trace.IdGenerator`."""

    def __init__(self, span: SpanContext) -> None:
        self._span = span

    def generate_trace_id(self) -> int:
        """Return the id of the trace; asked for the root of a trace only."""
        return self._span.trace_id

    def generate_span_id(self) -> int:
        """Return the id of the span."""
        return self._span.span_id

    def is_trace_id_random(self) -> bool:
        """Return that any part of the id of the trace is as random as any other."""
        return True


@contextmanager
def _current(span: Span, parent: Context) -> Iterator[None]:
    """Make a span the current one of the handler, and end it with the outcome."""
    token = context.attach(trace.set_span_in_context(span, parent))
    try:
        yield
    except BaseException as error:
        for kind, outcome in _NOT_FAILED:
            if isinstance(error, kind):
                with ignored("an attribute of a span"):
                    span.set_attribute(attributes.OUTCOME, outcome)
                break
        else:
            with ignored("the status of a span"):
                span.set_attribute(attributes.ERROR_TYPE, _type_name(error))
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            with suppress(Exception):  # the class of the application may raise when it is made a string
                span.record_exception(error)
                span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
        raise
    finally:
        context.detach(token)
        with ignored("the end of a span"):
            span.end()


def _function(app: App, name: str) -> str:
    task = app.tasks.get(name)
    return name if task is None else f"{task.handler.__module__}.{getattr(task, '__qualname__', name)}"


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
