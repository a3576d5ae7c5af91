"""The models over qworker's tables: reading with the ORM, refusing to write, and what jobs can be made to do."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core import serializers
from django.db import connection, transaction
from django.db.models import Count
from django.test.utils import CaptureQueriesContext

from qworker import InvalidOperation, JobState
from qworker.contrib.django import app
from qworker.contrib.django.models import Job, Node, Schedule
from qworker.decoding import Unreadable
from tests.contrib.django.shop.tasks import echo
from tests.database import Database


@pytest.fixture
def conn(site: Path, database: Database) -> psycopg.Connection[Any]:
    return database.connect()


def store(conn: psycopg.Connection[Any], state: str = "failed", **columns: Any) -> int:
    """Insert a job, whatever its state."""
    table = "job" if state in ("scheduled", "available", "running", "failed") else "job_history"
    columns = {"state": state, "task": "shop.work", **columns}
    if table == "job":
        columns |= {"failed_at": datetime.now(UTC)} if state == "failed" else {}
        columns |= {"run_at": datetime.now(UTC) + timedelta(hours=1)} if state == "scheduled" else {}
    else:
        now = datetime.now(UTC)
        columns = {
            "id": conn.execute("SELECT nextval('qworker.job_id_seq')").fetchone()[0],  # type: ignore[index]
            "enqueued_at": now, "finished_at": now, "attempt": 1, "ring_day": 0, "priority": 5, "crashes": 0,
            "node_losses": 0, "is_hook": False, "queue": "default", "args": "{}", **columns,
        }  # fmt: skip
    names = ", ".join(columns)
    places = ", ".join(["%s"] * len(columns))
    query: Any = f"INSERT INTO qworker.{table} ({names}) VALUES ({places}) RETURNING id"  # noqa: S608
    row = conn.execute(query, [*columns.values()])
    return int(row.fetchone()[0])  # type: ignore[index]


def test_jobs_are_found_by_their_columns(conn: psycopg.Connection[Any]) -> None:
    mail = store(conn, queue="mail", tags=["customer-7", "vip"], args='{"to": {"name": "Ada"}}')
    done = store(conn, "completed", result="[1, 2]")
    assert [job.id for job in Job.objects.all()] == [done, mail]
    assert Job.objects.get(state="failed", queue="mail").id == mail
    assert Job.objects.get(state=JobState.COMPLETED).result == [1, 2]
    assert Job.objects.get(tags__contains=["vip"]).tags == ["customer-7", "vip"]
    assert not Job.objects.filter(tags__contains=["vip", "other"]).exists()
    assert Job.objects.get(args__to__name="Ada").args == {"to": {"name": "Ada"}}
    assert Job.objects.get(enqueued_at__gte=datetime.now(UTC) - timedelta(minutes=1), queue="mail").id == mail
    assert list(Job.objects.order_by().values_list("queue").annotate(Count("id")).order_by("queue")) == [
        ("default", 1), ("mail", 1),
    ]  # fmt: skip
    with pytest.raises(TypeError, match="tags takes a list of strings, not 'vip'"):
        Job.objects.filter(tags__contains="vip")


@pytest.mark.parametrize(
    ("conditions", "read"),
    [
        ({"state": "failed"}, {"job"}),
        ({"state__in": ["failed", "running"]}, {"job"}),
        ({"state": "completed"}, {"job_history"}),
        ({"state__in": ["completed", "failed"]}, {"job", "job_history"}),
        ({"state__in": Job.objects.values("state")}, {"job", "job_history"}),
        ({}, {"job", "job_history"}),
    ],
)
def test_a_table_without_such_jobs_is_not_read(
    conn: psycopg.Connection[Any], conditions: dict[str, Any], read: set[str]
) -> None:
    plan = Job.objects.filter(**conditions)[:10].explain()
    assert {name for name in ("job", "job_history") if f" on {name} " in plan or f" on {name}_00 " in plan} == read


def test_the_opposite_of_a_state_is_all_others(conn: psycopg.Connection[Any]) -> None:
    store(conn)
    others = {store(conn, "completed"), store(conn, "available")}
    assert {job.id for job in Job.objects.exclude(state="failed")} == others


def test_the_newest_jobs_are_read_from_indexes(conn: psycopg.Connection[Any]) -> None:
    conn.execute("SET enable_seqscan = off")
    with conn.cursor() as cursor:
        cursor.execute("EXPLAIN SELECT * FROM qworker.jobs ORDER BY id DESC LIMIT 10")
        plan = "\n".join(line for (line,) in cursor)
    assert "Merge Append" in plan
    assert "Sort  (" not in plan


def test_jobs_of_the_block_are_seen_in_it(site: Path) -> None:
    with transaction.atomic():
        result = echo.enqueue(1)
        assert Job.objects.get(pk=result.id).args == {"*": [1]}
        transaction.set_rollback(True)
    assert not Job.objects.exists()


def test_values_that_were_edited_by_hand_are_shown_as_far_as_possible(conn: psycopg.Connection[Any]) -> None:
    deep = "[" * 300 + "]" * 300
    store(
        conn, "completed", result=deep, errors='"no list"', enqueued_at="infinity", claimed_at="-infinity",
        args='{"n": ' + "9" * 5000 + "}", tags=None, meta="[1]",
    )  # fmt: skip
    job = Job.objects.get()
    assert isinstance(job.result, Unreadable)
    assert job.enqueued_at.year == 9999
    assert job.claimed_at.year == 1
    assert job.args == {"n": "9" * 5000}
    assert job.tags == []
    assert [attempt.message for attempt in job.attempts] == ["no list"]


@pytest.mark.parametrize("model", [Job, Schedule, Node])
def test_writing_is_refused_with_what_to_do_instead(conn: psycopg.Connection[Any], model: Any) -> None:
    store(conn)
    refused = [
        lambda: model().save(), lambda: model().delete(), model.objects.create,
        lambda: model.objects.all().delete(), lambda: model.objects.update(name="x"),
        lambda: model.objects.bulk_create([model()]), lambda: model.objects.bulk_update([model()], ["id"]),
        lambda: model.objects.get_or_create(pk=1), lambda: model.objects.update_or_create(pk=1),
        lambda: model.objects.using("default").all()._raw_delete("default"),
    ]  # fmt: skip
    for write in refused:
        with pytest.raises(InvalidOperation, match=f"{model.__name__} is read-only: "):
            write()
    assert conn.execute("SELECT count(*) FROM qworker.job").fetchone() == (1,)


def test_a_fixture_with_jobs_says_how_it_is_made_without(conn: psycopg.Connection[Any]) -> None:
    store(conn)
    text = serializers.serialize("json", Job.objects.all())
    with pytest.raises(InvalidOperation, match="--exclude qworker"):
        next(serializers.deserialize("json", text)).save()


def test_a_job_and_a_queryset_are_retried_cancelled_and_discarded(conn: psycopg.Connection[Any]) -> None:
    ids = [store(conn, queue="mail") for _ in range(4)]
    store(conn, queue="other")
    assert Job.objects.get(pk=ids[0]).retry()
    assert not Job.objects.get(pk=ids[0]).retry()
    assert Job.objects.filter(state="failed", queue="mail").discard() == 3
    assert Job.objects.get(pk=ids[0]).cancel()
    assert Job.objects.filter(queue="other").retry() == 1
    assert Job.objects.filter(queue="other").cancel() == 1
    assert Job.objects.get(pk=ids[1]).discard() is False
    assert sorted(Job.objects.values_list("state", flat=True)) == ["cancelled", "cancelled", *["discarded"] * 3]


def test_what_a_queryset_does_belongs_to_the_block(conn: psycopg.Connection[Any]) -> None:
    store(conn)
    with transaction.atomic():
        assert Job.objects.filter(state="failed").retry() == 1
        transaction.set_rollback(True)
    assert Job.objects.get().state == "failed"


def test_more_jobs_than_a_batch_are_changed(conn: psycopg.Connection[Any]) -> None:
    conn.execute("INSERT INTO qworker.job (task) SELECT 'x' FROM generate_series(1, 2500)")
    assert Job.objects.filter(state="available").cancel() == 2500


def test_jobs_in_a_database_without_an_application_cannot_be_changed(conn: psycopg.Connection[Any]) -> None:
    job = Job(id=1)
    job._state.db = "elsewhere"
    with pytest.raises(InvalidOperation, match="no application has its jobs in the database 'elsewhere'"):
        job.retry()


def test_schedules_and_nodes_are_read(conn: psycopg.Connection[Any]) -> None:
    conn.execute(
        "INSERT INTO qworker.cron (name, task, expression, timezone, declared_by) "
        "VALUES ('nightly', 'shop.report', '0 3 * * *', 'UTC', 1)"
    )
    conn.execute(
        "INSERT INTO qworker.node (name, version, queues, worker_count, lease_seconds, state, heartbeat_at) VALUES "
        "('web-1', '0.1', '{a,b}', 4, 30, '{\"cron\": {\"nightly\": 1}}', now()), "
        "('web-2', '0.1', '{a,b}', 4, 30, '{\"cron\": {\"nightly\": 1}}', now() - interval '1 hour')"
    )
    schedule = Schedule.objects.get()
    assert (schedule.pk, schedule.last_tick, schedule.nodes()) == ("nightly", None, ["web-1"])
    assert [(node.name, node.queues, node.is_live()) for node in Node.objects.all()] == [
        ("web-1", ["a", "b"], True), ("web-2", ["a", "b"], False),
    ]  # fmt: skip


def test_no_model_is_imported_with_the_package(site: Path) -> None:
    with CaptureQueriesContext(connection) as queries:
        assert app.schema == "qworker"
    assert len(queries) == 0
