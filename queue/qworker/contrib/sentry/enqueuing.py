"""The span around enqueueing. Its trace is continued by the job."""

from collections.abc import Iterator
from contextlib import contextmanager

import sentry_sdk

from qworker.carrier import CarryingEnqueuer, Message
from qworker.spec import JobSpec

#: What names this integration in spans.
ORIGIN = "auto.queue.qworker"
#: The keys of the headers. OpenTelemetry may carry a baggage of its own.
TRACE, BAGGAGE = "sentry-trace", "sentry-baggage"


class PublishingEnqueuer(CarryingEnqueuer):
    """Stores jobs inside of a span of the caller's transaction."""

    @contextmanager
    def publish(self, spec: JobSpec, *, many: bool) -> Iterator[Message]:
        """Open the span, and return the headers that continue its trace."""
        if not sentry_sdk.get_client().is_active():
            yield Message({})
            return
        with sentry_sdk.start_span(op="queue.publish", name=spec.task, origin=ORIGIN) as span:
            headers = {TRACE: sentry_sdk.get_traceparent(), BAGGAGE: sentry_sdk.get_baggage()}
            message = Message({name: value for name, value in headers.items() if value})
            yield message
            span.set_data("messaging.system", "qworker")
            span.set_data("messaging.destination.name", spec.queue)
            if many:
                span.set_data("messaging.batch.message_count", message.stored)
            elif message.stored is not None and not isinstance(message.stored, int):
                span.set_data("messaging.message.id", str(message.stored.id))
