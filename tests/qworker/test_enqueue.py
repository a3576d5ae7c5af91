"""Enqueueing one job on the application's own connection."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from unittest.mock import Mock

import psycopg
import pytest

from qworker import App, Job, JobState, PayloadTooLarge, Retry, SchemaError, Task
from qworker.payload import MAX_ARGS
from qworker.registry import Registry
from tests.database import Database
from tests.qworker.conftest import Query


@pytest.fixture
def send(app: App) -> Task[..., None]:
    @app.task(name="send")
    def send(user_id: int, text: str = "hi") -> None: ...

    return send


def test_a_job_is_stored_with_its_arguments_by_name(send: Task[..., None], query: Query) -> None:
    job = send.enqueue(7, text="ça va 🎉")
    assert (job.state, job.queue, job.priority, job.task) == (JobState.AVAILABLE, "default", 5, "send")
    assert job.args == {"user_id": 7, "text": "ça va 🎉"}
    assert query("SELECT id, state::text, args, overrides, tags, holds_key, run_at FROM qworker.job") == [
        (job.id, "available", {"user_id": 7, "text": "ça va 🎉"}, None, None, False, None)
    ]


def test_what_enqueue_returns_is_what_a_look_finds(app: App, send: Task[..., None]) -> None:
    for task in (send.options(), send.options(delay=60, tags=["a"]), send.options(unique="k")):
        job = task.enqueue(7, text="x")
        assert job.refresh() == job == app.job(job.id)


def test_defaults_of_the_task_are_overridden_by_options(app: App, query: Query) -> None:
    @app.task(name="t", queue="emails", priority=3, tags=["a"], timeout=30, retry=5)
    def task() -> None: ...

    task.enqueue()
    task.options(queue="sms", priority=0).options(tags=["b", 'c"\\'], timeout=None, retry=Retry(2)).enqueue()
    assert query("SELECT queue, priority, tags, overrides FROM qworker.job ORDER BY id") == [
        ("emails", 3, ["a"], None),
        ("sms", 0, ["b", 'c"\\'], {"timeout": "none", "retry": json.loads(json.dumps(Retry(2).to_json()))}),
    ]


def test_overridden_retries_survive_the_database(send: Task[..., None], query: Query) -> None:
    policy = Retry(4, backoff=0.5, never_on=(KeyError,))
    send.options(retry=policy, timeout=timedelta(minutes=2)).enqueue(1)
    ((overrides,),) = query("SELECT overrides::text FROM qworker.job")
    assert Retry.from_json(json.loads(overrides)["retry"]) == policy
    assert json.loads(overrides)["timeout"] == 120


def test_a_delay_counts_from_the_databases_clock(send: Task[..., None], query: Query) -> None:
    job = send.options(delay=60).enqueue(1)
    assert job.state is JobState.SCHEDULED
    ((left,),) = query("SELECT extract(epoch FROM run_at - clock_timestamp())::float FROM qworker.job")
    assert 50 < left <= 60


def test_a_time_to_come_is_waited_for_and_a_past_one_is_now(send: Task[..., None], query: Query) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    job = send.options(run_at=later).enqueue(1)
    assert (job.state, job.run_at) == (JobState.SCHEDULED, later)
    assert query("SELECT run_at FROM qworker.job") == [(later,)]
    job = send.options(run_at=datetime(2020, 1, 1, tzinfo=UTC)).enqueue(1)
    assert (job.state, job.run_at) == (JobState.AVAILABLE, None)


def test_the_furthest_moments_can_be_stored(send: Task[..., None]) -> None:
    assert send.options(run_at=datetime.max.replace(tzinfo=UTC)).enqueue(1).run_at == datetime.max.replace(tzinfo=UTC)
    assert send.options(delay=timedelta(days=36_500)).enqueue(1).state is JobState.SCHEDULED


def test_expiry_is_stored_as_a_moment(send: Task[..., None], query: Query) -> None:
    send.options(expires=60).enqueue(1)
    moment = datetime(2040, 1, 1, tzinfo=UTC)
    send.options(expires=moment).enqueue(1)
    ((soon,), (fixed,)) = query("SELECT expires_at FROM qworker.job ORDER BY id")
    assert timedelta(seconds=50) < soon - datetime.now(UTC) <= timedelta(seconds=61)
    assert fixed == moment


def test_class_tasks_are_enqueued_by_instance(app: App, query: Query) -> None:
    @app.task(name="order", queue="critical")
    @dataclass
    class ProcessOrder:
        order_id: int
        lines: tuple[int, ...] = ()

        def handle(self) -> None: ...

    job = app.enqueue(ProcessOrder(7, (1, 2)), priority=0)
    assert job.args == {"order_id": 7, "lines": [1, 2]}
    assert query("SELECT task, queue, priority, args FROM qworker.job") == [
        ("order", "critical", 0, {"order_id": 7, "lines": [1, 2]})
    ]


def test_positional_arguments_keep_their_places(app: App, query: Query) -> None:
    @app.task(name="t")
    def task(a: int, /, *rest: int, key: str = "x") -> None: ...

    task.enqueue(1, 2, 3, key="y")
    assert query("SELECT args FROM qworker.job") == [({"*": [1, 2, 3], "key": "y"},)]


def test_nothing_is_stored_of_a_job_that_is_refused(send: Task[..., None], query: Query) -> None:
    for args, error in [
        (("a", "b", "c"), TypeError),
        ((object(),), TypeError),
        ((float("nan"),), ValueError),
        (("\0",), ValueError),
        (("\ud800",), ValueError),
        (("x" * MAX_ARGS,), PayloadTooLarge),
    ]:
        with pytest.raises(error):
            send.enqueue(*args)
    assert query("SELECT count(*) FROM qworker.job") == [(0,)]


def test_the_largest_arguments_arrive(send: Task[..., None], query: Query) -> None:
    send.enqueue("x" * (MAX_ARGS - len('{"user_id":""}')))
    assert query("SELECT length(args ->> 'user_id') FROM qworker.job") == [(MAX_ARGS - 14,)]


@pytest.mark.parametrize(
    "value",
    [2**63, -(10**400), 1e16, -1.5e300, 1.7976931348623157e308, 5e-324, 0.1, "1e+16", '"\\"e+5', {"e+": [1e22, "e+1"]},
     "\u2028\x01\\u0000\"'%s%(a)s", "\N{DEVANAGARI LETTER KA}", [], {}, None, True],
)  # fmt: skip
def test_values_come_back_as_they_were(send: Task[..., None], value: object) -> None:
    (found,) = send.enqueue(value).refresh().args.values()
    assert (found, type(found)) == (value, type(value))


def test_sleeping_nodes_of_the_queue_are_woken_and_no_others(send: Task[..., None], database: Database) -> None:
    conn = database.connect()
    conn.execute("LISTEN qworker")
    node = Registry().register(conn, name="n", version="1", queues=["emails"], worker_count=1, lease_seconds=30.0)
    send.options(queue="emails").enqueue(1)
    Registry().set_idle(conn, node, idle=True)
    send.options(queue="other").enqueue(1)
    send.options(queue="emails", delay=60).enqueue(1)
    send.options(queue="emails", tags=["heard"]).enqueue(1)
    send.options(queue="emails", expires=60).enqueue(1)
    send.options(queue="emails", unique="k").enqueue(1)
    send.options(queue="emails").enqueue_many([(1,), (2,)])
    send.options(queue="emails", delay=60).enqueue_many([(1,), (2,)])
    assert [notify.payload for notify in conn.notifies(timeout=5, stop_after=4)] == ["emails"] * 4
    assert list(conn.notifies(timeout=0)) == []


def test_enqueueing_takes_one_round_trip(send: Task[..., None], app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    send.enqueue(1)
    with app.pool.connection() as conn:
        trips = Mock(wraps=conn.wait)
        monkeypatch.setattr(conn, "wait", trips)
    send.enqueue(1)
    assert trips.call_count == 1


def test_a_missing_schema_is_reported_with_the_command(empty_database: Database) -> None:
    for schema, command in [("qworker", "`qworker db migrate`"), ("jobs", "`qworker db migrate --schema jobs`")]:
        app = App(empty_database.dsn, schema=schema)
        task: Task[[], None] = app.task(name="t")(lambda: None)
        for use in (task.enqueue, lambda task=task: task.enqueue_many([()]), lambda app=app: app.job(1)):
            with pytest.raises(SchemaError) as caught:
                use()
            assert command in str(caught.value)
        app.close()


def test_on_the_callers_connection_a_missing_schema_is_reported_too(empty_database: Database) -> None:
    app = App("postgresql://nobody@127.0.0.1:1/nowhere")
    task: Task[[], None] = app.task(name="t")(lambda: None)
    with pytest.raises(SchemaError, match="qworker db migrate"):
        task.using(empty_database.connect()).enqueue()


def test_another_schemas_name_is_honoured_everywhere(empty_database: Database) -> None:
    from qworker.migrations import migrate

    migrate(empty_database.connect(), "jobs")
    app = App(empty_database.dsn, schema="jobs")

    @app.task(name="t")
    def task(n: int) -> None: ...

    task.enqueue(1)
    task.options(unique="k", delay=5).enqueue(1)
    task.enqueue_many([(1,)], ids=True)
    assert app.queue("default").size() == 3
    assert len(app.admin.find()) == 3
    app.close()


def test_the_error_of_a_task_names_it(send: Task[..., None]) -> None:
    with pytest.raises(TypeError, match=r"^send\(user_id: int, text: str = 'hi'\) -> None: missing"):
        send.enqueue()


def test_jobs_of_one_producer_are_numbered_in_order(send: Task[..., None]) -> None:
    jobs: list[Job] = [send.enqueue(n) for n in range(5)]
    assert [job.id for job in jobs] == sorted(job.id for job in jobs)


def test_a_driver_error_that_is_the_callers_stays_the_drivers(send: Task[..., None], database: Database) -> None:
    conn = database.connect(autocommit=False)
    with pytest.raises(psycopg.errors.UndefinedFunction):
        conn.execute("SELECT no_such_function()")
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        send.using(conn).enqueue(1)


def test_an_argument_may_be_named_self(app: App, query: Query) -> None:
    @app.task(name="bound")
    def bound(self: int, args: int, kwargs: int) -> int:
        return self + args + kwargs

    assert bound(self=1, args=2, kwargs=3) == 6
    bound.enqueue(self=1, args=2, kwargs=3)
    bound.options(priority=1).enqueue(self=1, args=2, kwargs=3)
    bound.enqueue_many([{"self": 1, "args": 2, "kwargs": 3}])
    assert query("SELECT args FROM qworker.job") == [({"self": 1, "args": 2, "kwargs": 3},)] * 3


def test_a_class_is_built_again_of_the_fields_as_they_are(app: App) -> None:
    @app.task(name="ship")
    @dataclass
    class Ship:
        slug: str
        built: int = field(init=False, default=0)

        def __post_init__(self) -> None:
            self.slug = self.slug.lower()
            self.built += 1

        def handle(self) -> tuple[str, int]:
            return self.slug, self.built

    job = app.enqueue(Ship("ABC"))
    assert job.args == {"slug": "abc"}
    assert app.get_task("ship").handler(**job.args) == ("abc", 1)
