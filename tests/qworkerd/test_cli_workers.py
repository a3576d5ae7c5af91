"""`qworker workers pause` and `resume`, and where a pause is shown."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from qworker import App
from qworker.actor import acting_as
from qworker.nodes import NodeNotFound, Nodes
from tests.database import Database
from tests.qworkerd.conftest import Command
from tests.waiting import until


@pytest.fixture
def app(database: Database) -> Iterator[App]:
    app = App(database.dsn)
    yield app
    app.close()


@pytest.fixture
def conn(database: Database) -> psycopg.Connection[Any]:
    return database.connect()


def register(
    conn: psycopg.Connection[Any], name: str = "web1:7", queues: str = "{mail}", state: str = "{}", silent: str = "0 s"
) -> int:
    ((node,),) = conn.execute(
        "INSERT INTO qworker.node (name, version, queues, worker_count, lease_seconds, state, heartbeat_at)"
        " VALUES (%s, '1', %s, 2, 30, %s, clock_timestamp() - %s::interval) RETURNING id",
        [name, queues, state, silent],
    ).fetchall()
    return int(node)


def test_a_node_is_paused_listed_and_resumed(command: Command, conn: psycopg.Connection[Any]) -> None:
    node = register(conn, state='{"workers": [{"worker": 1, "job": 7, "task": "send"}, {"worker": 2}]}')
    done = command("workers", "pause", "web1:7", "--reason", "new kernel")
    assert done.exit_code == 0
    assert done.stdout.startswith(f"node 'web1:7' (id {node}) is paused since 2")
    assert done.stdout.endswith(": new kernel; 1 of 2 workers still run a job\n")
    assert done.stderr == "warning: no other node claims jobs of queue 'mail'\n"
    for words in ((), ("list",)):
        head, row, *_ = command("workers", *words).stdout.splitlines()
        assert head.split()[-1] == "PAUSED"
        assert row.endswith(": new kernel")
    again = command("workers", "pause", str(node), "--reason", "another")
    assert again.exit_code == 0
    assert again.stdout.startswith(f"node 'web1:7' (id {node}) was already paused since ")
    assert ": new kernel" in again.stdout
    assert again.stderr == "", "nothing has changed"
    assert command("workers", "resume", "web1:7").stdout == f"node 'web1:7' (id {node}) is resumed\n"
    late = command("workers", "resume", str(node))
    assert (late.exit_code, late.stdout) == (0, f"node 'web1:7' (id {node}) was not paused\n")
    assert "PAUSED" not in command("workers").stdout


def test_json_has_the_pause_and_whether_it_changed(command: Command, conn: psycopg.Connection[Any]) -> None:
    node = register(conn)
    (found,) = json.loads(command("workers", "pause", "web1:7", "--reason", "r", "--json").stdout).items()
    assert found[0] == "web1:7"
    assert found[1].items() >= {"node": node, "changed": True, "busy": 0}.items()
    assert found[1]["paused"]["reason"] == "r"
    (listed,) = json.loads(command("workers", "list", "--json").stdout)
    assert listed["paused"] == found[1]["paused"]
    assert json.loads(command("top", "--once", "--json").stdout)["nodes"][0]["paused"] == listed["paused"]
    assert json.loads(command("workers", "resume", "web1:7", "--json").stdout) == {
        "web1:7": {"node": node, "changed": True, "paused": None, "busy": 0}
    }
    assert json.loads(command("workers", "--json").stdout)[0]["paused"] is None
    assert command("workers", "--json", "pause", "web1:7").exit_code == 2


def test_several_nodes_are_paused_or_none(command: Command, conn: psycopg.Connection[Any]) -> None:
    nodes = [register(conn, f"web{n}:7") for n in range(3)]
    wrong = command("workers", "pause", "web0:7", "web3:7")
    assert (wrong.exit_code, wrong.stdout) == (1, "")
    assert wrong.stderr.startswith("qworker: node 'web3:7' not found; did you mean 'web")
    assert conn.execute("SELECT count(*) FROM qworker.paused_node").fetchall() == [(0,)]
    done = command("workers", "pause", "web0:7", nodes[1])
    assert done.stdout.count(" is paused since ") == 2
    assert done.stderr == "", "the third one serves the queue"
    assert command("workers", "pause").exit_code == 2


def test_a_node_that_is_dead_or_has_its_name_from_others_is_refused(
    command: Command, conn: psycopg.Connection[Any], app: App
) -> None:
    dead = register(conn, "worker:1", silent="40 s")
    for name in ("worker:1", str(dead)):
        done = command("workers", "pause", name)
        assert done.exit_code == 1
        assert done.stderr.startswith(f"qworker: node {name!r} is not alive: its last heartbeat was 40")
        assert done.stderr.endswith("ago, and its lease is 30s\n")
    live = register(conn, "worker:1")
    assert app.admin.pause_nodes("worker:1") == [live], "in a container, each supervisor has the pid 1"
    other = register(conn, "worker:1")
    with pytest.raises(
        NodeNotFound, match=rf"2 nodes have the name 'worker:1': pass the id of one of them, {live}, {other}"
    ):
        app.admin.pause_nodes("worker:1")
    assert app.admin.pause_nodes(other) == [other]
    bad = command("workers", "pause", str(live), "--reason", "x" * 1001)
    assert bad.exit_code == 2
    # A node that has been silent for a while may come back.
    conn.execute("UPDATE qworker.node SET heartbeat_at = clock_timestamp() - interval '40 s' WHERE id = %s", [other])
    assert command("workers", "resume", str(other)).stdout.endswith(" is resumed\n")


def test_a_pause_is_recorded_by_the_statement_that_makes_it(
    command: Command, conn: psycopg.Connection[Any], app: App
) -> None:
    node = register(conn)
    with acting_as("alice", via="web", address="192.0.2.7"):
        assert app.admin.pause_nodes("web1:7", reason="new kernel") == [node]
    with acting_as("bob"):
        assert app.admin.pause_nodes(node) == []
        assert app.admin.resume_nodes(node) == [node]
        assert app.admin.resume_nodes(node) == []
    found = [(e.actor, e.via, e.action, dict(e.target), e.note) for e in app.admin.audit(node="web1:7")]
    assert found == [
        ("bob", "api", "node.resume", {"nodes": ["web1:7"], "node_ids": [node]}, None),
        ("alice", "web", "node.pause", {"nodes": ["web1:7"], "node_ids": [node]}, "new kernel"),
    ]
    assert f"node web1:7; node_id {node}" in command("audit", "--node", "web1:7").stdout
    assert command("audit", "--node", "web").stderr == "no matching actions\n"


def test_of_two_who_pause_a_node_at_once_one_does(conn: psycopg.Connection[Any], database: Database) -> None:
    node = register(conn)
    start, changed = threading.Barrier(8), list[tuple[int, int]]()

    def pause(number: int) -> None:
        with database.connect() as own:
            start.wait()
            with acting_as(f"user{number}"):
                changed.extend((number, one) for one in Nodes().pause(own, [node], f"reason {number}"))

    threads = [threading.Thread(target=pause, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ((winner, paused),) = changed
    assert paused == node
    assert conn.execute("SELECT paused_by, pause_reason FROM qworker.paused_node").fetchall() == [
        (f"user{winner}", f"reason {winner}")
    ]
    assert conn.execute("SELECT actor FROM qworker.audit").fetchall() == [(f"user{winner}",)]


def test_a_node_that_ends_meanwhile_is_not_paused(conn: psycopg.Connection[Any], database: Database) -> None:
    gone, left = register(conn), register(conn, "web2:7")
    done: list[list[int]] = []
    with database.connect(autocommit=False) as other:
        other.execute("DELETE FROM qworker.node WHERE id = %s", [gone])
        thread = threading.Thread(target=lambda: done.append(Nodes().pause(database.connect(), [gone, left], None)))
        thread.start()
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        until(lambda: conn.execute(waiting).fetchone() == (1,))
        other.commit()
    thread.join()
    assert done == [[left]]
    assert conn.execute("SELECT node FROM qworker.paused_node").fetchall() == [(left,)]
    assert [dict(target) for (target,) in conn.execute("SELECT target FROM qworker.audit")] == [
        {"nodes": ["web2:7"], "node_ids": [left]}
    ]


def test_paused_workers_are_no_capacity(command: Command, conn: psycopg.Connection[Any]) -> None:
    register(conn, "web1:7", "{mail,sms}")
    conn.execute("INSERT INTO qworker.job (queue, task, run_at) SELECT 'mail', 'send', NULL FROM generate_series(1, 9)")

    def workers() -> tuple[int, Any, int]:
        load = json.loads(command("stats", "--json", "--queue", "mail").stdout)["queues"]["mail"]
        (shown,) = [q for q in json.loads(command("top", "--once", "--json").stdout)["queues"] if q["name"] == "mail"]
        return load["workers"], load["drain_seconds"], shown["workers"]

    assert workers()[::2] == (2, 2)
    command("workers", "pause", "web1:7")
    assert workers() == (0, None, 0)
    register(conn, "web2:7")
    assert workers()[::2] == (2, 2)
