"""What is reported to Sentry, in one process: with the real SDK and a transport that keeps everything."""

from collections.abc import Iterator
from threading import Event
from time import monotonic
from typing import Any

import pytest

from qworker import App, Retry, current_job
from qworker.testing import drain
from tests.database import Database
from tests.qworker.conftest import Query

pytest.importorskip("sentry_sdk")

import sentry_sdk

from qworker.contrib.sentry import Sentry
from tests.contrib.sentry.transport import KeepingTransport


@pytest.fixture
def transport() -> Iterator[KeepingTransport]:
    KeepingTransport.kept.clear()
    sentry_sdk.init(
        "https://key@localhost/1", transport=KeepingTransport, traces_sample_rate=1.0, default_integrations=False,
        auto_enabling_integrations=False,
    )  # fmt: skip
    client: Any = sentry_sdk.get_client()
    yield client.transport
    client.close()
    sentry_sdk.get_global_scope().set_client(None)


@pytest.fixture
def app(database: Database) -> Iterator[App]:
    app = App(database.dsn)
    yield app
    app.close()


def test_a_request_is_continued_by_the_job(app: App, transport: KeepingTransport, query: Query) -> None:
    Sentry(app)
    task = app.task(name="mail")(lambda n: n)
    with sentry_sdk.start_transaction(op="http.server", name="request"):
        task.enqueue(1)
        task.enqueue_many([(2,), (3,)])
    drain(app)
    request, *jobs = transport.of("transaction")
    one, many = request["spans"]
    assert one["op"] == many["op"] == "queue.publish"
    assert many["data"]["messaging.batch.message_count"] == 2
    parents = [job["contexts"]["trace"]["parent_span_id"] for job in jobs]
    assert parents == [one["span_id"], many["span_id"], many["span_id"]]
    assert {job["contexts"]["trace"]["trace_id"] for job in jobs} == {request["contexts"]["trace"]["trace_id"]}
    assert [job["contexts"]["trace"]["op"] for job in jobs] == ["queue.task"] * 3
    ((meta,),) = query("SELECT DISTINCT (SELECT array_agg(k) FROM jsonb_object_keys(meta -> 'trace') AS k) "
                       "FROM qworker.job_history")  # fmt: skip
    assert sorted(meta) == ["sentry-baggage", "sentry-trace"]


def test_what_one_job_notes_is_not_seen_by_the_next(app: App, transport: KeepingTransport) -> None:
    Sentry(app)

    @app.task(name="noted")
    def noted(n: int) -> None:
        sentry_sdk.set_tag(f"n{n}", "x")
        sentry_sdk.add_breadcrumb(message=str(n))
        sentry_sdk.capture_message("here")

    noted.enqueue_many([(1,), (2,)])
    sentry_sdk.add_breadcrumb(message="between two jobs")
    drain(app)
    first, second = transport.of("event")
    assert set(first["tags"]) == {"n1", "qworker.task", "qworker.queue"}
    assert set(second["tags"]) == {"n2", "qworker.task", "qworker.queue"}
    assert [crumb["message"] for crumb in second["breadcrumbs"]["values"]] == ["2"]


def test_retries_are_reported_if_they_are_wanted(app: App, transport: KeepingTransport) -> None:
    Sentry(app, retries=True)

    @app.task(name="pay", retry=Retry(2, backoff=0))
    def pay() -> None:
        raise LookupError("no card")

    pay.enqueue()
    drain(app, due="all", raise_failures=False)
    assert [(event["level"], event["contexts"]["qworker"]["attempt"]) for event in transport.of("event")] == [
        ("warning", 1), ("error", 2)
    ]  # fmt: skip


def test_a_snooze_is_neither_an_error_nor_a_failed_transaction(app: App, transport: KeepingTransport) -> None:
    Sentry(app)
    app.task(name="later")(lambda: current_job.snooze(60)).enqueue()
    drain(app)
    assert transport.of("event") == []
    (transaction,) = transport.of("transaction")
    assert transaction["contexts"]["trace"]["status"] == "ok"


def test_schedules_check_in(app: App, transport: KeepingTransport, database: Database) -> None:
    Sentry(app, check_ins=True)

    @app.cron("0 3 * * *", timezone="Europe/Berlin", name="nightly")
    @app.task(name="report", retry=False)
    def report(fails: bool = False) -> None:
        if fails:
            raise LookupError

    report.enqueue()
    report.enqueue(fails=True)
    with database.connect() as conn:
        conn.execute("""UPDATE qworker.job SET meta = '{"cron": "nightly", "tick": "x"}'""")
    drain(app, raise_failures=False)
    found = transport.of("check_in")
    assert [(check["monitor_slug"], check["status"]) for check in found] == [
        ("nightly", "in_progress"), ("nightly", "ok"), ("nightly", "in_progress"), ("nightly", "error")
    ]  # fmt: skip
    assert found[0]["check_in_id"] == found[1]["check_in_id"]
    assert found[0]["monitor_config"] == {
        "schedule": {"type": "crontab", "value": "0 3 * * *"}, "timezone": "Europe/Berlin"
    }  # fmt: skip


def test_without_a_client_nothing_is_carried(app: App, query: Query) -> None:
    Sentry(app)
    app.task(name="t")(lambda: None).enqueue()
    assert query("SELECT meta FROM qworker.job") == [(None,)]
    (attempt,) = drain(app)
    assert attempt.state == "completed"


class BrokenTransport(KeepingTransport):
    """Raises wherever the SDK calls it."""

    def capture_envelope(self, envelope: Any) -> None:  # noqa: ARG002 - the signature is that of the base class
        raise RuntimeError("broken")

    def flush(self, timeout: float, callback: Any = None) -> None:  # noqa: ARG002
        raise RuntimeError("broken")


class BlockingTransport(KeepingTransport):
    released = Event()

    def flush(self, timeout: float, callback: Any = None) -> None:  # noqa: ARG002
        self.released.wait(60)


def use(transport: type[KeepingTransport], **options: Any) -> None:
    sentry_sdk.init(
        "https://key@localhost/1", transport=transport, default_integrations=False, auto_enabling_integrations=False,
        **options,
    )  # fmt: skip


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("broken")


@pytest.mark.parametrize(
    "where", ["traces_sampler", "before_send", "before_send_transaction", "before_breadcrumb", "transport"]
)
@pytest.mark.usefixtures("transport")
def test_what_is_plugged_into_the_sdk_fails_no_job(app: App, database: Database, query: Query, where: str) -> None:
    """A check-in that could not be sent failed the job of a schedule, also when it had done its work."""
    if where == "transport":
        use(BrokenTransport, traces_sample_rate=1.0)
    else:
        use(KeepingTransport, **({"traces_sample_rate": 1.0} | {where: broken}))
    Sentry(app, check_ins=True, retries=True)
    ran: list[int] = []

    @app.cron("* * * * *")
    @app.task(name="ticked", retry=Retry(3))
    def ticked() -> None:
        ran.append(0)

    @app.task(name="fail", retry=Retry(2, backoff=0))
    def fail() -> None:
        raise ValueError("the handler's own")

    app.run_schedule("ticked")
    fail.enqueue()
    drain(app, raise_failures=False)
    for hook in app.stop_hooks:
        hook()
    assert ran == [0]
    assert query("SELECT state::text, errors -> -1 ->> 'message' FROM qworker.jobs ORDER BY task") == [
        ("failed", "the handler's own"), ("completed", None),
    ]  # fmt: skip


@pytest.mark.usefixtures("transport")
def test_a_transport_that_blocks_keeps_no_worker(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qworker.contrib.sentry.extension.FLUSH_TIMEOUT", 0.2)
    use(BlockingTransport)
    Sentry(app)
    (hook,) = app.stop_hooks
    began = monotonic()
    hook()
    assert monotonic() - began < 10
    BlockingTransport.released.set()
