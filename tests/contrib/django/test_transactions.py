"""Jobs in the transactions of Django, however they end: a job must be stored exactly if the work around it is."""
# ruff: noqa: PT012 - blocks that end by an exception are what these tests are about

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction

from qworker.contrib.django import app as project
from qworker.contrib.django.models import Job

APP: Any = project


@pytest.fixture
def task(site: Path) -> Iterator[Any]:
    call_command("migrate", verbosity=0)
    yield APP.task(name="task")(lambda n: n)
    del APP.tasks["task"]
    ContentType.objects.filter(app_label="shop").delete()


def row(name: str) -> None:
    ContentType.objects.create(app_label="shop", model=name)


def rows() -> set[str]:
    return set(ContentType.objects.filter(app_label="shop").values_list("model", flat=True))


def stored() -> list[int]:
    """Return the arguments of the jobs that are committed, as another session sees them."""
    found: list[int] = []

    def read() -> None:
        try:
            found.extend(sorted(job.args["n"] for job in Job.objects.all()))
        finally:
            connection.close()

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    return found


def test_savepoints_that_are_rolled_back_take_their_jobs_along(task: Any) -> None:
    with transaction.atomic():
        task.enqueue(1)
        with pytest.raises(ValueError, match="inner"), transaction.atomic():
            task.enqueue(2)
            with transaction.atomic():
                task.enqueue(3)
            raise ValueError("inner")
        mark = transaction.savepoint()
        task.enqueue(4)
        transaction.savepoint_rollback(mark)
        with transaction.atomic(savepoint=False):
            task.enqueue(5)
        assert stored() == []
    assert stored() == [1, 5]


def test_a_block_that_will_be_rolled_back_takes_no_job(task: Any) -> None:
    with transaction.atomic():
        transaction.set_rollback(True)
        with pytest.raises(transaction.TransactionManagementError):
            task.enqueue(1)
        with pytest.raises(transaction.TransactionManagementError):
            task.enqueue_many([(1,)])
        task.using(None).enqueue(2)
    assert stored() == [2]


def test_rows_that_raise_leave_the_block_as_it_was(task: Any) -> None:
    def numbers() -> Iterator[tuple[int]]:
        yield (1,)
        raise KeyError("rows")

    with transaction.atomic():
        row("before")
        with pytest.raises(KeyError):
            task.enqueue_many(numbers())
        with pytest.raises(TypeError):
            task.enqueue_many([(1,), (object(),)])
        with pytest.raises(TypeError):
            task.enqueue(object())
        row("after")
        task.enqueue(2)
    assert (rows(), stored()) == ({"before", "after"}, [2])


def test_a_block_that_has_failed_or_lost_its_connection_takes_no_job(task: Any) -> None:
    with pytest.raises(psycopg.errors.InFailedSqlTransaction), transaction.atomic():
        with pytest.raises(DatabaseError):
            connection.cursor().execute("SELECT 1 / 0")
        task.enqueue(1)
    with pytest.raises(DatabaseError), transaction.atomic():
        connection.close()
        task.enqueue(2)
    with pytest.raises(DatabaseError), transaction.atomic():
        row("lost")
        connection.connection.close()  # as by a server that ends
        with pytest.raises(psycopg.OperationalError):
            task.enqueue(3)
    assert (rows(), stored()) == (set(), [])
    task.enqueue(4)
    assert stored() == [4]


def test_what_waits_for_the_commit_enqueues_at_once(task: Any) -> None:
    with transaction.atomic():
        transaction.on_commit(lambda: task.enqueue(1))
        transaction.on_commit(lambda: 1 / 0, robust=True)

        def in_a_block() -> None:
            with transaction.atomic():
                task.enqueue(2)
                transaction.on_commit(lambda: task.enqueue(3))

        transaction.on_commit(in_a_block)
        assert stored() == []
    assert stored() == [1, 2, 3]


def test_a_thread_joins_no_block_of_another_one(task: Any) -> None:
    def enqueue() -> None:
        task.enqueue(1)
        connection.close()

    with pytest.raises(ValueError, match="main"), transaction.atomic():
        task.enqueue(2)
        thread = threading.Thread(target=enqueue)
        thread.start()
        thread.join()
        raise ValueError("main")
    assert stored() == [1]


def test_a_durable_block_and_a_repeatable_read_see_what_they_must(task: Any) -> None:
    with transaction.atomic(durable=True):
        connection.cursor().execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        assert Job.objects.count() == 0
        thread = threading.Thread(target=lambda: (task.enqueue(1), connection.close()))
        thread.start()
        thread.join()
        assert list(APP.jobs()) == [], "the snapshot of the block"
        job = task.enqueue(2)
        assert APP.job(job.id).state == "available"
        assert len(list(Job.objects.all())) == 1
    assert stored() == [1, 2]


def test_manual_transactions(task: Any) -> None:
    transaction.set_autocommit(False)
    try:
        task.enqueue(1)
        assert stored() == []
        transaction.rollback()
        task.enqueue(2)
        transaction.commit()
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)
    assert stored() == [2]
