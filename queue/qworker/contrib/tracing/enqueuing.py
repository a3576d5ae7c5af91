"""The span around enqueueing. Its context travels with the job."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from opentelemetry.propagate import inject
from opentelemetry.trace import Span, SpanKind, Tracer, use_span

from qworker.carrier import CarryingEnqueuer, Message
from qworker.contrib.failures import ignored
from qworker.contrib.tracing import attributes
from qworker.job import Job
from qworker.spec import JobSpec
from qworker.task import Enqueuing


class TracedEnqueuer(CarryingEnqueuer):
    """Stores jobs inside of a span; one span for all jobs of a call of `enqueue_many`."""

    def __init__(self, inner: Enqueuing, tracer: Tracer) -> None:
        super().__init__(inner)
        self._tracer = tracer

    @contextmanager
    def publish(self, spec: JobSpec, *, many: bool) -> Iterator[Message]:  # noqa: ARG002 - the attributes tell
        """Open the span, and return its context as the propagators write it."""
        span: Span | None = None
        with ignored("the start of a span"):
            span = self._tracer.start_span(
                attributes.enqueue_span(spec.task), kind=SpanKind.PRODUCER,
                attributes=attributes.publishing(spec.task, spec.queue),
            )  # fmt: skip
        try:
            with self._around(span):
                carrier: dict[str, object] = {}
                # Without an SDK no span is made: only what the caller has received itself is carried.
                with ignored("a propagator"):
                    inject(carrier)
                message = Message({name: value for name, value in carrier.items() if isinstance(value, str)})
                yield message
            with ignored("an attribute of a span"):
                if span is not None:
                    _describe(span, message.stored)
        finally:
            with ignored("the end of a span"):
                if span is not None:
                    span.end()

    def _around(self, span: Span | None) -> AbstractContextManager[object]:
        """Make a span the current one, if it could be started."""
        return nullcontext() if span is None else use_span(span)


def _describe(span: Span, stored: Job | int | None) -> None:
    """Add what was stored to the span of an enqueuing."""
    if isinstance(stored, int):
        span.set_attribute(attributes.MESSAGE_COUNT, stored)
    elif stored is not None:
        span.set_attribute(attributes.MESSAGE_ID, str(stored.id))
        if stored.duplicate:
            span.set_attribute(attributes.DUPLICATE, True)
