"""The load of queues for autoscalers."""

import json
from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient

from qworker import App
from qworkerd.web.access import Access
from tests.database import Database
from tests.lifecycle.test_probes import triggers
from tests.web.conftest import Clock


@pytest.fixture
def queued(database: Database) -> App:
    app = App(database.dsn)
    app.task(name="send", queue="mail")(lambda: None).enqueue_many([()] * 120)
    return app


def test_the_example_of_the_documentation_finds_its_value(client: FlaskClient, queued: App) -> None:
    """`valueLocation` is a path of GJSON, whose names are separated by dots."""
    ((url, location),) = [(found["url"], found["valueLocation"]) for found in triggers() if "url" in found]
    address = url.partition("example.com")[2]
    answer = client.get(address)
    assert answer.mimetype == "application/json"
    found = json.loads(answer.data)
    assert found["queues"]["mail"]["available"] == 120
    for name in location.split("."):
        found = found[name]
    assert found == 2  # 120 jobs of unknown run time, reckoned as a second each, in a minute
    assert json.loads(client.get(f"{address}&target_drain=10").data)["queues"]["mail"]["wanted_workers"] == 12


def test_a_queue_that_is_named_is_found_from_zero(client: FlaskClient) -> None:
    assert json.loads(client.get("/stats.json").data) == {"queues": {}}
    assert json.loads(client.get("/stats.json?queue=mail").data)["queues"]["mail"]["wanted_workers"] == 0


def test_jobs_are_counted_once_a_second_for_all_who_ask(clock: Clock, client: FlaskClient, queued: App) -> None:
    def available() -> int:
        return int(json.loads(client.get("/stats.json").data)["queues"]["mail"]["available"])

    assert available() == 120
    queued.tasks["send"].enqueue()
    assert available() == 120
    clock.now += 1.1
    assert available() == 121


@pytest.mark.parametrize("query", ["target_drain=0", "target_drain=x", "target_drain=86401", "queue=" + "x" * 501])
def test_parameters_have_bounds(client: FlaskClient, query: str) -> None:
    assert client.get(f"/stats.json?{query}").status_code == 400


def test_who_may_not_see_anything_is_refused(make_dashboard: Callable[..., Flask]) -> None:
    nobody = make_dashboard(access=lambda _: Access("nobody", frozenset()))
    assert nobody.test_client().get("/stats.json").status_code == 403
