"""`qworker why`: each reason for which a job does not run, with its evidence."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from qworker import App, JobNotFound
from qworker.reasons import Cause, Explanation
from tests.database import Database
from tests.qworkerd.conftest import Command
from tests.qworkerd.test_doctor import job, node
from tests.waiting import until

Explain = Callable[[int], Explanation]


@pytest.fixture
def conn(database: Database) -> psycopg.Connection[Any]:
    return database.connect()


@pytest.fixture
def explain(database: Database) -> Iterator[Explain]:
    app = App(database.dsn)
    yield app.admin.explain
    app.close()


def causes(found: Explanation) -> list[Cause]:
    return [reason.cause for reason in found.reasons]


def busy(number: int, task: str = "report", ran: float = 90.0) -> dict[str, object]:
    return {"worker": number, "pid": 100 + number, "phase": "running", "job": 9000 + number, "task": task, "ran": ran}


def test_no_node_is_live(conn: psycopg.Connection[Any], explain: Explain) -> None:
    node(conn, "default", silent=600)
    found = explain(job(conn))
    assert causes(found) == [Cause.NO_NODE]
    assert found.needs_action


def test_no_node_serves_its_queue(conn: psycopg.Connection[Any], explain: Explain) -> None:
    node(conn, "default")
    (reason,) = explain(job(conn, queue="mail")).reasons
    assert reason.cause is Cause.UNSERVED
    assert reason.summary == "none of 1 live nodes serves queue 'mail'"
    assert reason.remedy == "qworker --queues mail"


def test_its_queue_is_paused(conn: psycopg.Connection[Any], explain: Explain, command: Command) -> None:
    node(conn, "mail")
    number = job(conn, queue="mail")
    conn.execute("INSERT INTO qworker.queue VALUES ('mail', now(), 'alice', 'upstream down')")
    found = explain(number)
    assert causes(found)[0] is Cause.PAUSED
    assert "by alice: upstream down" in found.reasons[0].summary
    words = found.reasons[0].remedy.split()
    assert command(*words[1:]).exit_code == 0
    assert Cause.PAUSED not in causes(explain(number))


def test_all_nodes_that_serve_its_queue_are_paused(
    conn: psycopg.Connection[Any], explain: Explain, command: Command
) -> None:
    nodes = [node(conn, "mail", workers=[busy(1)]), node(conn, "mail")]
    node(conn, "other")
    number = job(conn, queue="mail")
    insert = "INSERT INTO qworker.paused_node (node, paused_by, pause_reason) VALUES (%s, 'alice', 'new kernel')"
    conn.execute(insert, [nodes[0]])
    (reason,) = explain(number).reasons
    assert reason.cause is Cause.STARTING
    assert reason.summary.startswith("2 of 2 workers that serve the queue are idle"), "those of the other node"
    conn.execute(insert, [nodes[1]])
    found = explain(number)
    (reason,) = found.reasons
    assert reason.cause is Cause.NODES_PAUSED
    assert found.needs_action
    assert reason.summary.startswith("all 2 live nodes that serve queue 'mail' are paused: web1:17 since 2")
    assert reason.summary.count("by alice: new kernel") == 2, "nodes with the same name"
    assert [evidence["id"] for evidence in reason.evidence["nodes"]] == nodes
    assert reason.remedy == f"qworker workers resume {nodes[0]} {nodes[1]}"
    assert command("why", number).exit_code == 1
    assert command(*reason.remedy.split()[1:]).exit_code == 0
    assert causes(explain(number)) == [Cause.STARTING]


def test_it_is_not_due(conn: psycopg.Connection[Any], explain: Explain) -> None:
    node(conn, "default")
    number = job(conn, "scheduled", run_at="2999-01-01")
    found = explain(number)
    assert causes(found) == [Cause.NOT_DUE]
    assert not found.needs_action
    assert found.position is None


def test_it_is_due_and_was_not_promoted(conn: psycopg.Connection[Any], explain: Explain) -> None:
    found = explain(job(conn, "scheduled", run_at="2020-01-01"))
    assert causes(found) == [Cause.NOT_DUE, Cause.NOT_PROMOTED, Cause.NO_NODE]


def test_it_waits_for_another_attempt(conn: psycopg.Connection[Any], explain: Explain) -> None:
    node(conn, "default")
    errors = Jsonb([{"type": "TimeoutError", "message": "smtp"}])
    found = explain(job(conn, "scheduled", run_at="2999-01-01", attempt=2, errors=errors))
    assert causes(found) == [Cause.RETRYING]
    assert found.reasons[0].summary.startswith("attempt 2 failed with TimeoutError: smtp; the next one is due in ")


def test_no_worker_knows_its_task(conn: psycopg.Connection[Any], explain: Explain) -> None:
    node(conn, "default")
    found = explain(job(conn, "scheduled", task="old", run_at="2999-01-01", unknown_task_count=3))
    assert causes(found) == [Cause.UNKNOWN_TASK]
    assert "put it back 3 times because they do not know task 'old'" in found.reasons[0].summary
    assert found.needs_action


def test_its_row_is_locked(conn: psycopg.Connection[Any], database: Database, explain: Explain) -> None:
    node(conn, "default")
    number = job(conn)
    holder = database.connect(autocommit=False, application_name="migration")
    holder.execute("SELECT FROM qworker.job WHERE id = %s FOR UPDATE", [number])
    reason = explain(number).reasons[0]
    assert reason.cause is Cause.LOCKED
    assert f"session {holder.info.backend_pid} (role postgres, application 'migration') has locked" in reason.summary
    conn.execute(reason.remedy.encode())
    until(lambda: Cause.LOCKED not in causes(explain(number)))


def test_all_workers_are_busy_and_it_has_a_place(conn: psycopg.Connection[Any], explain: Explain) -> None:
    node(conn, "default", workers=[busy(1), busy(2, ran=300.0)])
    for _ in range(6):
        job(conn)
    urgent = job(conn, priority=0)
    last = job(conn)
    job(conn, priority=9)
    conn.execute(
        "INSERT INTO qworker.job_history (id, enqueued_at, finished_at, state, attempt, ring_day, priority, crashes,"
        " node_losses, is_hook, queue, task, args) SELECT n, now(), t, 'completed', 1, qworker.history_day(t), 5, "
        "0, 0, false,"
        " 'default', 't', '{}' FROM generate_series(1, 20) AS n, (SELECT now() - interval '10 s') AS x (t)"
    )
    found = explain(last)
    assert causes(found) == [Cause.BUSY]
    assert found.position is not None
    assert (found.position.ahead, found.position.capped) == (7, False)
    assert found.position.rate is not None
    assert found.position.expected_start is not None
    assert 1.5 < found.position.rate < 2.1
    assert found.position.expected_start == pytest.approx(7 / found.position.rate)
    assert "all 2 workers that serve the queue are busy (2 with report, the longest for 5m)" in found.reasons[0].summary
    first = explain(urgent).position
    assert first is not None
    assert first.ahead == 0


def test_the_expected_start_follows_from_what_the_nodes_have_counted(
    conn: psycopg.Connection[Any], explain: Explain
) -> None:
    node(conn, "default", workers=[busy(1), busy(2)])
    conn.execute("INSERT INTO qworker.series (queue, task) VALUES ('default', 'a'), ('default', 'b'), ('mail', 'a')")
    conn.execute(
        "INSERT INTO qworker.stat (width, at, series, succeeded, raised) SELECT 1, t, id, 100, 20 FROM qworker.series,"
        " generate_series(date_trunc('minute', now()) - interval '5 min', now() - interval '2 min', '1 min') AS t"
    )
    job(conn)
    position = explain(job(conn)).position
    assert position is not None
    assert position.rate == pytest.approx(2 * 120 / 60)
    assert position.expected_start == pytest.approx(1 / 4)


def test_the_expected_start_in_a_queue_that_was_idle_follows_from_what_its_jobs_took_before(
    conn: psycopg.Connection[Any], explain: Explain
) -> None:
    node(conn, "default", workers=[busy(1), busy(2)])
    for _ in range(6):
        job(conn)
    last = job(conn)
    assert explain(last).position.expected_start is None  # type: ignore[union-attr] # no job has ever run
    conn.execute("INSERT INTO qworker.stat_queue (width, at, queue, succeeded, run_seconds)"
                 " VALUES (10, now() - interval '3 hours', 'default', 4, 400)")  # fmt: skip
    found = explain(last)
    assert found.position is not None
    assert (found.position.rate, found.position.expected_start) == (None, 300.0)
    assert "6 jobs of queue 'default' are ahead of it; expected to start in 5m" in found.reasons[0].summary


def test_paused_nodes_start_nothing(conn: psycopg.Connection[Any], explain: Explain) -> None:
    pause = "INSERT INTO qworker.paused_node (node, paused_by) VALUES (%s, 'alice')"
    first, second = node(conn, "default", workers=[busy(1)]), node(conn, "urgent", "default", workers=[busy(2)])
    job(conn, queue="urgent")
    for _ in range(6):
        job(conn)
    last = job(conn)
    conn.execute("INSERT INTO qworker.stat_queue (width, at, queue, succeeded, run_seconds)"
                 " VALUES (10, now() - interval '3 hours', 'default', 4, 400)")  # fmt: skip

    def expected() -> tuple[tuple[str, ...], float | None]:
        position = explain(last).position
        assert position is not None
        return position.queues_before, position.expected_start

    assert expected() == (("urgent",), None)
    conn.execute(pause, [second])
    assert expected() == ((), 300.0), "by the two workers of the other node, which serves no queue before"
    conn.execute(pause, [first])
    assert expected() == ((), None)
    conn.execute("DELETE FROM qworker.paused_node")
    conn.execute("DELETE FROM qworker.job WHERE queue = 'urgent'")
    assert expected()[1] == 150.0
    conn.execute("INSERT INTO qworker.queue VALUES ('default', now(), 'alice', NULL)")
    assert expected()[1] is None


def test_queues_that_are_served_before_its_own_are_named(conn: psycopg.Connection[Any], explain: Explain) -> None:
    node(conn, "urgent", "empty", "default", workers=[busy(1), busy(2)])
    job(conn, queue="urgent")
    position = explain(job(conn)).position
    assert position is not None
    assert position.queues_before == ("urgent",)
    assert position.expected_start is None


def test_it_is_about_to_start(conn: psycopg.Connection[Any], explain: Explain) -> None:
    node(conn, "default", workers=[busy(1), {"worker": 2, "pid": 5, "phase": "idle"}])
    found = explain(job(conn))
    assert causes(found) == [Cause.STARTING]
    assert not found.needs_action


def test_it_runs(conn: psycopg.Connection[Any], explain: Explain) -> None:
    number = job(conn, "running", token=1, claimed_at="now")
    own = node(conn, "default", workers=[{"worker": 1, "pid": 77, "job": number, "task": "send"}])
    conn.execute("UPDATE qworker.job SET node = %s", [own])
    found = explain(number)
    assert causes(found) == [Cause.RUNNING]
    assert found.reasons[0].summary.endswith(" on web1:17, worker 1 (pid 77)")
    conn.execute("UPDATE qworker.job SET cancel_requested_at = now() - interval '10 minutes'")
    found = explain(number)
    assert causes(found) == [Cause.CANCEL_REQUESTED, Cause.RUNNING]
    assert "its cancellation was requested 10m ago" in found.reasons[0].summary
    conn.execute("UPDATE qworker.node SET heartbeat_at = now() - interval '20 seconds'")
    assert Cause.NODE_SILENT in causes(explain(number))
    conn.execute("DELETE FROM qworker.node")
    found = explain(number)
    assert causes(found) == [Cause.NODE_GONE]
    assert found.needs_action


def test_it_holds_a_unique_key(conn: psycopg.Connection[Any], explain: Explain) -> None:
    node(conn, "default")
    number = job(conn, holds_key=True)
    conn.execute("INSERT INTO qworker.unique_key (task, key, job_id) VALUES ('send', 'user-7', %s)", [number])
    found = explain(number)
    assert causes(found) == [Cause.STARTING, Cause.HOLDS_KEY]
    assert "unique key 'user-7'" in found.reasons[1].summary
    assert not found.needs_action


def test_it_has_ended(conn: psycopg.Connection[Any], explain: Explain, command: Command) -> None:
    errors = Jsonb([{"type": "ValueError", "message": "no luck"}])
    number = job(conn, "failed", attempt=3, crashes=1, failed_at="now", errors=errors)
    (reason,) = explain(number).reasons
    assert reason.cause is Cause.FAILED
    assert "failed after 3 attempts, 1 of which killed the worker, the last with ValueError: no luck" in reason.summary
    assert command(*reason.remedy.split()[1:]).exit_code == 0
    assert causes(explain(number)) == [Cause.NO_NODE]
    assert command("jobs", "cancel", number).exit_code == 0
    assert causes(explain(number)) == [Cause.CANCELLED]


def test_a_job_that_expired(conn: psycopg.Connection[Any], explain: Explain) -> None:
    conn.execute(
        "INSERT INTO qworker.job_history (id, enqueued_at, finished_at, state, attempt, ring_day, priority, crashes,"
        " node_losses, is_hook, queue, task, args, errors) VALUES (7, now(), now(), 'cancelled', 0,"
        " qworker.history_day(now()), 5, 0, 0, false, 'default', 't', '{}', %s)",
        [Jsonb([{"type": "Expired", "message": "not started before noon"}])],
    )
    (reason,) = explain(7).reasons
    assert (reason.cause, reason.summary) == (Cause.EXPIRED, "the job has expired: it was not started before noon")


def test_a_job_that_does_not_exist(explain: Explain, command: Command) -> None:
    with pytest.raises(JobNotFound):
        explain(4711)
    done = command("why", 4711)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "job 4711 not found" in done.stderr


def test_a_node_that_reports_nonsense_does_no_harm(conn: psycopg.Connection[Any], explain: Explain) -> None:
    node(conn, "default", workers=[17, {"job": "x", "ran": "y"}, None])
    assert causes(explain(job(conn))) == [Cause.STARTING]
    conn.execute("UPDATE qworker.node SET state = '{\"workers\": 5}'")
    assert causes(explain(job(conn))) == [Cause.STARTING]


def test_the_command_prints_reasons_and_json(conn: psycopg.Connection[Any], command: Command) -> None:
    node(conn, "default", workers=[busy(1, "a\x1b[2J"), busy(2)])
    number = job(conn)
    done = command("why", number)
    assert done.exit_code == 0
    assert done.stdout.startswith(f"job {number} of task send in queue default is available\n")
    assert "\x1b" not in done.stdout
    conn.execute("INSERT INTO qworker.queue VALUES ('default', now(), 'alice')")
    done = command("why", number, "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert found["needs_action"] is True
    assert [reason["cause"] for reason in found["reasons"]] == ["paused", "busy"]
    assert found["position"]["ahead"] == 0
