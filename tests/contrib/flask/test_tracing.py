"""Tracing in a Flask application: its hooks run in application contexts, as those of the application do."""

import json
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.database import Database
from tests.project import Project

pytest.importorskip("opentelemetry.sdk")
pytest.importorskip("sentry_sdk")

SHOP = """
import json
import os
import signal
from pathlib import Path

from flask import Flask, current_app
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, ConsoleSpanExporter

from qworker.contrib.flask import Qworker
from qworker.contrib.sentry import Sentry
from qworker.contrib.tracing import Tracing

queue = Qworker()


def configure():
    with Path("set-up").open("a") as file:
        print(current_app.name, os.getpid(), file=file)
    exporter = ConsoleSpanExporter(
        out=Path("spans").open("a"), formatter=lambda span: f"{span.to_json(indent=None)}\\n"
    )
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


Tracing(queue, setup=configure)
Sentry(queue)


@queue.task
def first():
    second.enqueue()


@queue.task(retry=False)
def second():
    os.kill(os.getpid(), signal.SIGKILL)


def create_app():
    web = Flask("shop")
    queue.init_app(web)
    return web
"""


def test_spans_lead_through_a_node_of_flask(database: Database, tmp_path: Path) -> None:
    url = "postgresql://{user}:{password}@{host}:{port}/{dbname}".format(**conninfo_to_dict(database.dsn))
    with Project(tmp_path, url, FLASK_APP="shop") as project:
        project.write("shop.py", SHOP)
        project.type("flask qworker enqueue shop.first")
        project.type("flask qworker run --burst --processes 1 --max-crashes 1")
    spans = [json.loads(line) for line in (tmp_path / "spans").read_text().splitlines()]
    first, enqueue, second = (
        next(span for span in spans if span["name"] == name)
        for name in ("run shop.first", "enqueue shop.second", "run shop.second")
    )
    assert enqueue["parent_id"] == first["context"]["span_id"]
    assert second["parent_id"] == enqueue["context"]["span_id"]
    assert second["attributes"]["qworker.cause"] == "signal:KILL"
    processes = [line.split() for line in (tmp_path / "set-up").read_text().splitlines()]
    assert {name for name, _ in processes} == {"shop"}
    assert len({pid for _, pid in processes}) == len(processes) >= 2
