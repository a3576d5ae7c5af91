"""The clock enqueues: each tick once however many nodes run, delayed jobs when they are due."""

from datetime import UTC, datetime
from statistics import median
from time import monotonic, time

import pytest

from tests.lifecycle.application import quick
from tests.lifecycle.cluster import Cluster
from tests.lifecycle.node import Node
from tests.waiting import until

EVERY_SECOND = "* * * * * *"
EVERY_OTHER = "* * * * * */2"
HOSTILE = "tests.lifecycle.hostile:app"


def start(cluster: Cluster, expression: str) -> Node:
    return cluster.start("--processes", "1", QWORKER_TEST_CRON=expression)


def enqueued(*nodes: Node, **facts: str) -> list[float]:
    """Return the ticks that nodes say they have enqueued, oldest first."""
    return sorted(event["tick"] for node in nodes for event in node.events("cron.enqueued", **facts))


def entered(cluster: Cluster) -> list[float]:
    """Return when the database has got the jobs of the schedule, oldest first."""
    rows = cluster.query("SELECT extract(epoch FROM enqueued_at)::float8 FROM qworker.jobs WHERE task = 'ticker'")
    return sorted(at for (at,) in rows)


@pytest.fixture(scope="module")
def pair(module_cluster: Cluster) -> list[Node]:
    """Two nodes with the same schedule."""
    nodes = [start(module_cluster, EVERY_SECOND) for _ in range(2)]
    return [node.await_ready() for node in nodes]


def test_delayed_jobs_start_within_a_second_of_being_due(module_cluster: Cluster, pair: list[Node]) -> None:
    due = {}
    for delay in (0.1, 0.7, 0.75, 1.0, 1.6):
        before = monotonic()
        job = quick.options(delay=delay).enqueue()
        due[job.id] = (before + delay, monotonic() + delay)
    for note in module_cluster.await_notes("start", len(due)):
        earliest, latest = due[int(note["job"])]
        assert earliest <= float(note["at"]) < latest + 1
    assert len(module_cluster.notes("start")) == len(due)


def test_each_tick_is_enqueued_once_by_two_nodes_and_none_is_missed(module_cluster: Cluster, pair: list[Node]) -> None:
    module_cluster.await_notes("tick", 5)
    # Whoever is stopped leaves the ticks to the other.
    first, second = pair
    assert first.stop() == 0
    module_cluster.await_notes("tick", 8)
    assert second.stop() == 0
    ticks = enqueued(*pair)
    assert ticks == [ticks[0] + n for n in range(len(ticks))], "one after the other, none twice"
    stored = "SELECT extract(epoch FROM (meta ->> 'tick')::timestamptz)::float8 FROM qworker.jobs WHERE task = 'ticker'"
    assert sorted(tick for (tick,) in module_cluster.query(stored)) == ticks, "each job tells its tick"
    late = [at - tick for at, tick in zip(entered(module_cluster), ticks, strict=True)]
    assert min(late) >= 0
    assert median(late) < 1, "in the second it was due, unless the machine stood still"
    ran = {note["job"] for note in module_cluster.notes("tick")}
    assert len(ran) == len(module_cluster.notes("tick")), "no job ran twice"


def test_the_newest_node_decides_about_a_schedule(cluster: Cluster) -> None:
    old = start(cluster, EVERY_SECOND).await_ready()
    cluster.await_notes("tick")
    new = start(cluster, EVERY_OTHER).await_ready()
    until(lambda: enqueued(new), what="the new node's first tick")
    changed_at = enqueued(new)[0]
    until(lambda: len(enqueued(new)) >= 2)
    later = [tick for tick in enqueued(old, new) if tick >= changed_at]
    assert later == [changed_at + 2 * n for n in range(len(later))]
    assert changed_at % 2 == 0


@pytest.fixture
def down_for_hours(cluster: Cluster) -> Node:
    """A node with three schedules whose last ticks were three and a half hours ago, and which tick once an hour."""
    minute = (datetime.now(UTC).minute + 30) % 60
    expression = f"{minute} * * * *"
    for name in ("skip", "once", "all"):
        cluster.query(
            "INSERT INTO qworker.cron (name, task, expression, timezone, last_tick, declared_by)"
            " VALUES (%s, %s, %s, 'UTC', clock_timestamp() - interval '3 hours 29 minutes', 0)",
            name, f"misfire_{name}", expression,
        )  # fmt: skip
    return cluster.start("--processes", "1", QWORKER_APP=HOSTILE, QWORKER_TEST_MISFIRES=expression).await_ready()


def test_what_passed_while_no_node_ran_is_made_up_for_as_the_schedule_says(
    cluster: Cluster, down_for_hours: Node
) -> None:
    cluster.await_notes("misfire", 4)
    assert down_for_hours.stop() == 0
    every, once = enqueued(down_for_hours, schedule="all"), enqueued(down_for_hours, schedule="once")
    assert every == [every[0], every[0] + 3600, every[0] + 7200]
    assert once == every[-1:], "the last one"
    assert 0 < time() - every[-1] < 3600
    assert down_for_hours.events("cron.enqueued", schedule="skip") == []
    assert len(cluster.notes("misfire")) == 4


def test_a_schedule_that_is_none_ends_the_node_at_once_and_says_why(cluster: Cluster) -> None:
    node = start(cluster, "61 * * * *")
    assert node.wait() == 78
    message = node.log.read_text()
    assert "61 * * * *" in message
    assert "ticker" in message
    assert "[61 * * * *] is not acceptable, out of range" in message
