"""Pages of systems with more queues and nodes than anybody reads: they stay small, and nothing is out of reach."""

import gzip
import json
from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.web.conftest import Rows

#: What a browser may be sent at first, and when a region is refreshed (bytes, compressed).
FIRST, REFRESH = 60_000, 15_000


@pytest.mark.parametrize("number", [50, 51, 2_000])
def test_the_overview_shows_the_queues_that_matter(client: FlaskClient, rows: Rows, number: int) -> None:
    rows(
        "INSERT INTO qworker.depth (at, queue, available, due, scheduled, running, failed, exact)"
        " SELECT now(), 'queue-' || n, n, 0, 0, 0, 0, true FROM generate_series(1, %s) AS n RETURNING 1",
        number - 1,
    )
    rows("INSERT INTO qworker.queue (name, paused_at, paused_by) VALUES ('paused-one', now(), 'anna') RETURNING 1")
    page = client.get("/").get_data(as_text=True)
    region = client.get("/?region=queues").get_data(as_text=True)
    assert region.count("<tr>") == 51
    assert ("All" in region, f"All {number:,} queues" in region) == (number > 50, number > 50)
    shown = [name for name in ("paused-one", f"queue-{number - 1}", "queue-1") if f">{name}<" in region]
    assert shown == ["paused-one", f"queue-{number - 1}", *(["queue-1"] if number == 50 else [])]
    assert len(json.loads(client.get("/overview.json").data)["queues"]) == number
    assert client.get("/overview.csv").get_data(as_text=True).count("queue-") == number - 1
    assert len(gzip.compress(page.encode())) < FIRST
    assert len(gzip.compress(region.encode())) < REFRESH


@pytest.fixture
def nodes(rows: Rows) -> None:
    """Two hundred nodes with eight workers each."""
    rows(
        "INSERT INTO qworker.node (id, name, version, queues, worker_count, lease_seconds, state)"
        " SELECT n, 'node-' || n, '1', '{a,b}', 8, 30, jsonb_build_object('workers', (SELECT jsonb_agg("
        "     jsonb_build_object('number', w, 'pid', 1000 + w, 'phase', 'idle', 'jobs', n))"
        "     FROM generate_series(1, 8) AS w))"
        " FROM generate_series(1, 200) AS n RETURNING 1"
    )


def test_nodes_are_narrowed_by_a_part_of_a_name(nodes: None, make_dashboard: Callable[..., Flask]) -> None:
    client = make_dashboard().test_client()
    region = client.get("/workers?region=nodes").get_data(as_text=True)
    assert region.count('id="node-') == 50
    assert "150 more are not shown" in region
    assert len(gzip.compress(region.encode())) < REFRESH
    assert 'name="find"' in client.get("/workers").get_data(as_text=True)
    assert len(json.loads(client.get("/workers.json").data)["nodes"]) == 200
    found = client.get("/workers?find=NODE-19&region=nodes").get_data(as_text=True)
    assert (found.count('id="node-'), "not shown" in found) == (11, False)
    nothing = client.get("/workers?find=<b>&region=nodes").get_data(as_text=True)
    assert "No name contains this" in nothing
    assert "<b>" not in nothing
    assert client.get("/workers", query_string={"find": "x" * 501}).status_code == 400


def test_many_nodes_with_many_schedules_are_read_in_time(client: FlaskClient, rows: Rows) -> None:
    rows(
        "INSERT INTO qworker.node (id, name, version, queues, worker_count, lease_seconds, state)"
        " SELECT n, 'node-' || n, '1', '{a}', 8, 30, jsonb_build_object('cron',"
        " jsonb_build_array('schedule-' || n, 'shared'))"
        " FROM generate_series(1, 4000) AS n RETURNING 1"
    )
    rows(
        "INSERT INTO qworker.cron (name, task, expression, timezone, declared_by)"
        " SELECT 'schedule-' || n, 't', '0 0 1 1 *', 'UTC', 1 FROM generate_series(1, 10000) AS n RETURNING 1"
    )
    answer = client.get("/schedules.json")
    assert answer.status_code == 200
    found = {one["name"]: one["nodes"] for one in json.loads(answer.data)["schedules"]}
    assert len(found) == 10_000
    assert (found["schedule-7"], found["schedule-4001"]) == (["node-7"], [])
