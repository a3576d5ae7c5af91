"""Spans of enqueueing and of attempts, and how they are connected: with the real SDK, in one process."""

import json
from collections.abc import Iterator
from threading import Event
from time import monotonic
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from qworker import App, Retry, current_job
from qworker.carrier import MAX_CARRIER, carry
from qworker.options import Options
from qworker.spec import JobSpec
from qworker.testing import drain, perform
from tests.database import Database
from tests.qworker.conftest import Query

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import baggage, context, propagate, trace
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import SpanKind, StatusCode

from qworker.contrib.tracing import Tracing


class Traced:
    """An application with its tracing, and the spans that have ended."""

    def __init__(self, dsn: str, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = provider.get_tracer("test")
        self.app = App(dsn)
        self.tracing = Tracing(self.app, tracer_provider=provider, **options)

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def span(self, name: str) -> ReadableSpan:
        (span,) = self.spans(name)
        return span


@pytest.fixture
def traced(database: Database) -> Iterator[Traced]:
    traced = Traced(database.dsn)
    yield traced
    traced.app.close()


def linked(span: ReadableSpan) -> list[int]:
    return [link.context.span_id for link in span.links]


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.trace_id)


def test_a_request_is_followed_into_the_handler(traced: Traced) -> None:
    seen: list[Any] = []

    @traced.app.task(name="mail", queue="emails")
    def mail(n: int) -> None:
        seen.append((trace.get_current_span().get_span_context().span_id, baggage.get_baggage("shop")))
        with traced.tracer.start_as_current_span("smtp"):
            pass

    with traced.tracer.start_as_current_span("request"):
        token = context.attach(baggage.set_baggage("shop", "berlin"))
        job = mail.enqueue(1)
        context.detach(token)
    drain(traced.app)
    request, enqueue, run, smtp = (traced.span(name) for name in ("request", "enqueue mail", "run mail", "smtp"))
    assert (parent_of(enqueue), parent_of(run), parent_of(smtp)) == (id_of(request), id_of(enqueue), id_of(run))
    assert linked(run) == [id_of(enqueue)]
    assert {trace_of(span) for span in (enqueue, run, smtp)} == {trace_of(request)}
    assert (enqueue.kind, run.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert seen == [(id_of(run), "berlin")]
    assert enqueue.attributes == {
        "messaging.system": "qworker", "messaging.operation.name": "enqueue", "messaging.operation.type": "send",
        "messaging.destination.name": "emails", "qworker.task": "mail", "messaging.message.id": str(job.id),
    }  # fmt: skip
    values = dict(run.attributes or {})
    assert 0 <= float(str(values.pop("qworker.age_seconds"))) < 60
    assert str(values.pop("code.function.name")).endswith("test_a_request_is_followed_into_the_handler.<locals>.mail")
    assert values == {
        "messaging.system": "qworker", "messaging.operation.name": "run", "messaging.operation.type": "process",
        "messaging.destination.name": "emails", "qworker.task": "mail", "messaging.message.id": str(job.id),
        "qworker.attempt": 1, "messaging.message.retry.count": 0,
    }  # fmt: skip
    assert run.status.status_code is StatusCode.UNSET


def test_a_retry_is_linked_to_the_attempt_that_failed_and_so_is_the_hook(traced: Traced) -> None:
    @traced.app.task(name="pay", retry=Retry(2, backoff=0))
    def pay() -> None:
        raise LookupError("no card")

    @pay.on_failure
    def failed(job: Any, error: Any) -> None: ...

    job = pay.enqueue()
    drain(traced.app, due="all", raise_failures=False)
    first, second, hook = traced.spans("run pay")
    enqueue = traced.span("enqueue pay")
    assert linked(first) == [id_of(enqueue)]
    assert linked(second) == [id_of(enqueue), id_of(first)]
    assert linked(hook) == [id_of(enqueue), id_of(second)]
    assert {parent_of(span) for span in (first, second, hook)} == {id_of(enqueue)}
    assert [(span.attributes or {}).get("qworker.failure_hook", False) for span in (first, second, hook)] == [
        False, False, True
    ]  # fmt: skip
    for span in (first, second):
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description == "LookupError: no card"
        assert (span.attributes or {})["error.type"] == "LookupError"
        assert [event.name for event in span.events] == ["exception"]
    assert hook.status.status_code is StatusCode.UNSET
    recorded = [error["traceparent"].split("-") for error in traced.app.job(job.id).errors]
    assert [int(span_id, 16) for _, _, span_id, _ in recorded] == [id_of(first), id_of(second)]


def test_an_attempt_that_is_snoozed_has_not_failed(traced: Traced) -> None:
    task = traced.app.task(name="later")(lambda: current_job.snooze(60))
    task.enqueue()
    drain(traced.app)
    run = traced.span("run later")
    assert run.status.status_code is StatusCode.UNSET
    assert (run.attributes or {})["qworker.outcome"] == "snoozed"


@pytest.mark.parametrize(("max_age", "age", "own_trace"), [(3600, 3599, False), (3600, 3601, True), (0, 0, True)])
def test_an_old_job_begins_a_trace_of_its_own(
    database: Database, query: Query, max_age: float, age: float, own_trace: bool
) -> None:
    traced = Traced(database.dsn, parent_max_age=max_age)
    traced.app.task(name="old")(lambda: None).enqueue()
    with database.connect() as conn:
        conn.execute("UPDATE qworker.job SET enqueued_at = enqueued_at - make_interval(secs => %s)", [age - 0.5])
    drain(traced.app)
    enqueue, run = traced.span("enqueue old"), traced.span("run old")
    assert linked(run) == [id_of(enqueue)]
    assert (run.parent is None, trace_of(run) != trace_of(enqueue)) == (own_trace, own_trace)
    traced.app.close()


def test_many_jobs_share_the_span_that_enqueued_them(traced: Traced, query: Query) -> None:
    task = traced.app.task(name="bulk")(lambda n: n)
    assert len(task.enqueue_many([(1,), (2,)], ids=True)) == 2
    assert task.options(tags=["a\\b"], delay=0).enqueue_many([(3,)]) == 1
    assert task.options(unique=True).enqueue_many([(4,), (5,)]) == 2
    spans = traced.spans("enqueue bulk")
    assert [(span.attributes or {})["messaging.batch.message_count"] for span in spans] == [2, 1, 2]
    assert all("messaging.message.id" not in (span.attributes or {}) for span in spans)
    found = query("SELECT meta -> 'trace' ->> 'traceparent' FROM qworker.job ORDER BY id")
    assert [int(str(text).split("-")[2], 16) for (text,) in found] == [
        id_of(spans[0]), id_of(spans[0]), id_of(spans[1]), id_of(spans[2]), id_of(spans[2])
    ]  # fmt: skip
    drain(traced.app)
    assert [parent_of(span) for span in traced.spans("run bulk")] == [
        int(str(text).split("-")[2], 16) for (text,) in found
    ]


def test_every_way_to_enqueue_carries_the_context(traced: Traced, database: Database, query: Query) -> None:
    psycopg2 = pytest.importorskip("psycopg2")
    task = traced.app.task(name="way")(lambda: None)
    task.enqueue()
    task.options(delay=60, tags=["t"]).enqueue()
    task.options(unique="k").enqueue()
    assert task.options(unique="k").enqueue().duplicate
    with database.connect() as conn, conn.transaction():
        task.using(conn).enqueue()
    other = psycopg2.connect(database.dsn)
    with other:
        task.using(other).enqueue()
    other.close()
    owner = database.connect()
    owner.execute("CREATE ROLE shopper LOGIN PASSWORD 'pw'")
    try:
        owner.execute("GRANT USAGE ON SCHEMA qworker TO shopper")
        owner.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA qworker TO shopper")
        with psycopg.connect(make_conninfo(database.dsn, user="shopper", password="pw")) as conn:
            task.using(conn).enqueue()
            task.using(conn).enqueue_many([()])
    finally:
        owner.execute("DROP OWNED BY shopper")
        owner.execute("DROP ROLE shopper")
    found = [int(str(text).split("-")[2], 16) for (text,) in query(
        "SELECT meta -> 'trace' ->> 'traceparent' FROM qworker.job ORDER BY id"
    )]  # fmt: skip
    spans = traced.spans("enqueue way")
    duplicate = spans.pop(3)
    assert (duplicate.attributes or {})["qworker.duplicate"] is True
    assert found == [id_of(span) for span in spans]


def test_an_error_while_enqueueing_is_recorded(traced: Traced) -> None:
    task = traced.app.task(name="way")(lambda n: n)
    with pytest.raises(TypeError):
        task.enqueue(object())
    assert traced.span("enqueue way").status.status_code is StatusCode.ERROR


def test_the_job_of_a_tick_names_its_schedule(traced: Traced, query: Query) -> None:
    task = traced.app.task(name="nightly")(lambda: None)
    task.options(unique="k").enqueue()
    with psycopg.connect(traced.app.dsn if isinstance(traced.app.dsn, str) else "", autocommit=True) as conn:
        conn.execute('UPDATE qworker.job SET meta = \'{"cron": "report", "tick": "x"}\'')
    drain(traced.app)
    run = traced.span("run nightly")
    assert (run.parent, linked(run)) == (None, [])
    assert (run.attributes or {})["qworker.schedule"] == "report"


@pytest.mark.parametrize(
    "meta", ['{"trace": 7}', '{"trace": {"traceparent": 1}}', '{"trace": {"traceparent": "x"}}', "[]"]
)
def test_a_context_that_nobody_can_read_is_ignored(traced: Traced, database: Database, meta: str) -> None:
    traced.app.task(name="way")(lambda: None).enqueue()
    with database.connect() as conn:
        conn.execute("UPDATE qworker.job SET meta = %s::jsonb", [meta])
    drain(traced.app)
    assert traced.span("run way").parent is None


def test_without_tracing_nothing_is_stored_or_read(database: Database, query: Query) -> None:
    app = App(database.dsn)
    task = app.task(name="plain")(lambda: None)
    task.enqueue()
    task.enqueue_many([()])
    assert app.origins is None
    assert query("SELECT count(*) FROM qworker.job WHERE meta IS NOT NULL") == [(0,)]
    app.close()


SPEC = JobSpec.of("t", Options(), Options())


def test_a_large_context_loses_its_baggage_first() -> None:
    small = {"traceparent": "00-1-2-01", "tracestate": "a=b"}
    assert carry(SPEC, {}) is SPEC
    assert json.loads(carry(SPEC, small).meta or "") == {"trace": small}
    baggage_too_large = carry(SPEC, small | {"baggage": "x" * MAX_CARRIER})
    assert json.loads(baggage_too_large.meta or "") == {"trace": small}
    state_too_large = carry(SPEC, small | {"tracestate": "x" * MAX_CARRIER, "baggage": "k=v"})
    assert json.loads(state_too_large.meta or "") == {"trace": {"traceparent": "00-1-2-01"}}
    assert carry(SPEC, {"traceparent": "x" * MAX_CARRIER}) is SPEC


def test_a_job_keeps_what_is_noted_beside_the_context() -> None:
    noted = carry(carry(SPEC, {"traceparent": "1"}), {"sentry-trace": "2"})
    assert json.loads(noted.meta or "") == {"trace": {"traceparent": "1", "sentry-trace": "2"}}


def test_the_age_of_a_parent_cannot_be_negative(database: Database) -> None:
    with pytest.raises(ValueError, match="parent_max_age must be 0"):
        Tracing(App(database.dsn), parent_max_age=-1)


def test_perform_makes_the_span_of_an_attempt(traced: Traced) -> None:
    task = traced.app.task(name="way")(lambda: trace.get_current_span().is_recording())
    assert perform(task, attempt=3) is True
    run = traced.span("run way")
    assert (run.parent, (run.attributes or {})["qworker.attempt"]) == (None, 3)


def _broken(*_: Any, **__: Any) -> None:
    raise RuntimeError("broken")


class Broken(SpanProcessor):
    """Raises wherever the SDK calls what an application plugs in."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:  # noqa: ARG002 - the signatures are the base's
        if self.where == "start":
            raise RuntimeError("broken")
        if self.where == "span":
            span.set_attribute = span.set_status = span.record_exception = _broken

    def on_end(self, span: Any) -> None:  # noqa: ARG002
        if self.where == "end":
            raise RuntimeError("broken")

    def __init__(self, where: str) -> None:
        self.where = where


class BrokenPropagator(TextMapPropagator):
    def extract(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("broken")

    def inject(self, carrier: Any, *_: Any, **__: Any) -> None:
        carrier["number"] = 7
        raise RuntimeError("broken")

    @property
    def fields(self) -> set[str]:
        return set()


@pytest.fixture
def textmap() -> Iterator[None]:
    """Restore the propagators, of which a process has one."""
    before = propagate.get_global_textmap()
    yield
    propagate.set_global_textmap(before)


@pytest.mark.parametrize("where", ["start", "end", "propagator", "sampler", "span"])
@pytest.mark.usefixtures("textmap")
def test_what_is_plugged_into_the_sdk_fails_no_job(database: Database, query: Query, where: str) -> None:
    """A handler that has done its work was run again, because its span could not be ended."""

    class BrokenSampler(Sampler):
        def should_sample(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("broken")

        def get_description(self) -> str:
            return "broken"

    provider = TracerProvider(sampler=BrokenSampler() if where == "sampler" else None)
    provider.add_span_processor(Broken(where))
    if where == "propagator":
        propagate.set_global_textmap(BrokenPropagator())
    app = App(database.dsn)
    Tracing(app, tracer_provider=provider)
    ran: list[int] = []

    @app.task(name="work", retry=Retry(3))
    def work(n: int) -> int:
        ran.append(n)
        return n

    @app.task(name="fail", retry=Retry(1))
    def fail() -> None:
        raise ValueError("the handler's own")

    assert work.enqueue(1).id
    assert work.enqueue_many([(2,), (3,)]) == 2
    fail.enqueue()
    drain(app, raise_failures=False)
    app.close()
    assert sorted(ran) == [1, 2, 3]
    assert query("SELECT state, count(*)::int FROM qworker.jobs GROUP BY state ORDER BY state") == [
        ("completed", 3), ("failed", 1),
    ]  # fmt: skip
    assert query("SELECT errors -> -1 ->> 'message' FROM qworker.job") == [("the handler's own",)]


class Blocking(SpanExporter):
    def __init__(self) -> None:
        self.released = Event()

    def export(self, spans: Any) -> Any:  # noqa: ARG002 - the signature is that of the base class
        self.released.wait(60)
        return SpanExportResult.SUCCESS


def test_an_exporter_that_blocks_keeps_no_worker(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK waits for its exporter, whatever timeout it is given."""
    monkeypatch.setattr("qworker.contrib.tracing.extension.FLUSH_TIMEOUT", 0.3)
    exporter = Blocking()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    app = App(database.dsn)
    tracing = Tracing(app, tracer_provider=provider)
    provider.get_tracer("test").start_span("waits").end()
    began = monotonic()
    tracing._flush()
    assert monotonic() - began < 10
    exporter.released.set()
    provider.shutdown()
    app.close()
