"""Tasks of Django run by `drain` in the transaction of a test."""

from pathlib import Path
from typing import Any

import pytest
from django.db import connections, transaction

from qworker.contrib.django.api import TaskResultDoesNotExist, TaskResultStatus, task_backends
from qworker.testing import drain
from tests.contrib.django.conftest import lines
from tests.contrib.django.shop import tasks


def test_a_task_runs_in_the_transaction_of_the_test_with_its_signals(site: Path) -> None:
    app: Any = task_backends["default"].app
    with transaction.atomic():
        good, bad = tasks.echo.enqueue(1), tasks.fails.enqueue()
        connection = connections["default"].connection
        attempts = drain(app, raise_failures=False)
        assert connections["default"].connection is connection
        assert not connection.closed
        good.refresh()
        bad.refresh()
        transaction.set_rollback(True)
    assert [type(attempt.error) for attempt in attempts] == [type(None), KeyError]
    assert (good.return_value, bad.status) == ([[1], {}], TaskResultStatus.FAILED)
    noted = [(line["id"], line["signal"], line["stored"], line["equal"]) for line in lines(site, "signals")]
    ready, running = TaskResultStatus.READY, TaskResultStatus.RUNNING
    assert noted == [
        (good.id, "enqueued", ready, True), (bad.id, "enqueued", ready, True),
        (good.id, "started", running, True), (good.id, "finished", TaskResultStatus.SUCCESSFUL, True),
        (bad.id, "started", running, True), (bad.id, "finished", TaskResultStatus.FAILED, True),
    ]  # fmt: skip
    with pytest.raises(TaskResultDoesNotExist):
        tasks.echo.get_result(good.id)


def test_a_failure_has_its_traceback_in_the_log_once(site: Path, caplog: pytest.LogCaptureFixture) -> None:
    with transaction.atomic():
        tasks.fails.enqueue()
        drain(task_backends["default"].app, raise_failures=False)
        transaction.set_rollback(True)
    ours = [record for record in caplog.records if record.name.startswith("qworker")]
    assert [record.name for record in ours if record.exc_info] == ["qworker.job"]
    assert [record.name for record in ours if "job.failed" in record.message] == ["qworker"]
