"""A traced application: each process of its node writes its spans into a file of its own."""

import logging
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

from qworker import App, Retry, current_job
from qworker.contrib.tracing import Tracing

app = App()


def set_up() -> None:
    """Configure the SDK so that spans are only exported if somebody flushes them."""
    path = Path(os.environ["QWORKER_TEST_DIR"]) / f"spans-{os.getpid()}"

    def one_line(span: ReadableSpan) -> str:
        return f"{span.to_json(indent=None)}\n"

    exporter = ConsoleSpanExporter(out=path.open("a"), formatter=one_line)
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=3_600_000))
    trace.set_tracer_provider(provider)


tracing = Tracing(app, setup=set_up)


@app.task(name="first")
def first() -> None:
    second.enqueue()


@app.task(name="second")
def second() -> None:
    logging.getLogger("shop").warning("said by %s", current_job.id)


@app.task(name="die")
def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="die once", retry=Retry(2, backoff=0.01, jitter=0))
def die_once() -> None:
    """Leave a span that ended before the process did."""
    with trace.get_tracer("shop").start_as_current_span("inside"):
        logging.getLogger("shop").warning("attempt %s of %s", current_job.attempt, current_job.id)
    if current_job.attempt == 1:
        provider = trace.get_tracer_provider()
        assert isinstance(provider, TracerProvider)
        provider.force_flush()
        os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="hang", timeout=0.2, retry=False)
def hang() -> None:
    while True:
        with suppress(BaseException):  # it does not let itself be interrupted
            time.sleep(60)
