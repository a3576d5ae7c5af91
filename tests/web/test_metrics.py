"""The metrics of the cluster on the dashboard."""

import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families as parse

from qworker import App, cluster
from qworkerd.metrics.names import METRICS
from qworkerd.web.access import Access
from tests.database import Database
from tests.waiting import until
from tests.web.conftest import Clock


@pytest.fixture
def queued(database: Database) -> App:
    app = App(database.dsn)
    app.task(name="send", queue="mail")(lambda: None).enqueue_many([()] * 120)
    with database.connect() as conn:
        conn.execute(
            "INSERT INTO qworker.depth (at, queue, available, due, scheduled, running, failed, oldest, exact)"
            " VALUES (now(), 'mail', 120, 0, 0, 0, 3, 4.5, true)"
        )
        conn.execute(
            "INSERT INTO qworker.cron (name, task, expression, timezone, declared_by, last_tick)"
            " VALUES ('hourly', 'send', '0 * * * *', 'UTC', 1, now() - interval '1 day')"
        )
    app.admin.pause("mail", reason="bounces")
    return app


def samples(client: FlaskClient) -> dict[tuple[str, str], float]:
    """Return the values of the samples, by name and what the labels beside the schema are."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    found = {}
    for family in parse(answer.text):
        for sample in family.samples:
            assert sample.labels["schema"] == "qworker"
            rest = ",".join(value for name, value in sample.labels.items() if name != "schema")
            found[sample.name, rest] = sample.value
    return found


def test_they_are_those_of_the_cluster(client: FlaskClient, queued: App) -> None:
    found = samples(client)
    assert found["qworker_queue_jobs", "mail,available"] == 120
    assert found["qworker_queue_jobs", "mail,failed"] == 3
    assert found["qworker_queue_oldest_seconds", "mail"] == 4.5
    assert found["qworker_queue_paused", "mail"] == 1
    assert found["qworker_queue_workers", "mail"] == 0
    assert found["qworker_jobs_enqueued_total", ""] >= 120
    assert found["qworker_nodes", ""] == 0
    assert found["qworker_table_bytes", "job"] > 0
    assert 22 * 3600 < found["qworker_schedule_late_seconds", "hourly"] < 25 * 3600
    assert {name.removesuffix("_total") for name, _ in found} <= METRICS.keys()


def test_they_have_what_the_doctor_has_found(clock: Clock, client: FlaskClient, queued: App) -> None:
    def found() -> bool:
        clock.now += 6.0
        return ("qworker_doctor_findings", "schedule-overdue,warning") in samples(client)

    until(found)


def test_they_are_read_once_in_five_seconds(clock: Clock, client: FlaskClient, queued: App) -> None:
    before = samples(client)["qworker_jobs_enqueued_total", ""]
    queued.tasks["send"].enqueue()
    clock.now += 4.0
    assert samples(client)["qworker_jobs_enqueued_total", ""] == before
    clock.now += 1.1
    assert samples(client)["qworker_jobs_enqueued_total", ""] == before + 1


def test_the_format_is_the_one_that_is_asked_for(client: FlaskClient, queued: App) -> None:
    assert client.get("/metrics").content_type.startswith("text/plain; version=")
    answer = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.content_type.startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_promtool_accepts_them(client: FlaskClient, queued: App) -> None:
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("promtool is not installed")
    text = client.get("/metrics").data
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_ticks_of_schedules_are_computed_once(
    client: FlaskClient, clock: Clock, queued: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples(client)
    monkeypatch.setattr(cluster, "Schedule", None)
    clock.now += 6.0
    assert samples(client)["qworker_schedule_late_seconds", "hourly"] > 0


def test_who_may_not_see_anything_is_refused(make_dashboard: Callable[..., Flask]) -> None:
    nobody = make_dashboard(access=lambda _: Access("nobody", frozenset()))
    assert nobody.test_client().get("/metrics").status_code == 403


def test_without_prometheus_client_the_answer_says_what_is_missing(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    answer = client.get("/metrics")
    assert answer.status_code == 404
    assert "pgqworker[metrics]" in answer.text
