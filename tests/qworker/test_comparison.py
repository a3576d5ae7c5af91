"""Two jobs are compared, and the last success of a task is found in bounded time."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from qworker.comparison import MAX_LINES, Circumstances, Comparisons, compare, last_success, successes
from qworker.db.connection import connect
from qworker.filters import parse
from qworker.job import Job, JobState
from qworker.job_logs import AttemptLog, LogLine
from qworker.search import Search
from qworker.tracebacks import innermost_frames
from qworker.typical import Typical
from tests.database import Database

NOON = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/mail.py", line 3, in send
    deliver(order)
    ~~~~~~~^^^^^^^
  File "/srv/shop/smtp.py", line 9, in deliver
    with smtplib.SMTP(host) as smtp:
  File "/usr/lib/python3.11/smtplib.py", line 255, in connect
    raise ValueError(order)
ValueError: no
"""


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def job(number: int = 1, state: JobState = JobState.COMPLETED, **values: Any) -> Job:
    known: dict[str, Any] = {"queue": "mail", "priority": 5, "task": "shop.send", "args": {}, "enqueued_at": NOON}
    return Job(id=number, state=state, **known | values)


def error(ended: float, **more: Any) -> dict[str, Any]:
    return {
        "at": at(ended).isoformat(), "attempt": 1, "type": "ValueError", "message": "no", "traceback": TRACEBACK,
        "fingerprint": "0" * 15 + "1",
    } | more  # fmt: skip


def test_options_that_are_known_of_both_differ_or_not() -> None:
    a, b = job(tags=("b", "a")), job(2, tags=("a", "b"), priority=3)
    around = {1: Circumstances({"timeout": 30}, "web1", "1.2", "v7"), 2: Circumstances(None, "web1", "1.3", None)}

    facts = {fact.name: fact for fact in compare(a, b, circumstances=around).facts}

    assert {name for name, fact in facts.items() if fact.differs} == {"priority", "node_version"}
    assert (facts["timeout"].a, facts["timeout"].b, facts["retry"].a) == (30, None, "task")
    assert "copy_of" not in facts


def test_times_are_those_of_the_last_attempt_that_has_ended() -> None:
    a = job(claimed_at=at(3), finished_at=at(5), attempt=1)
    b = job(2, JobState.SCHEDULED, attempt=1, errors=(error(9, ran=4),), run_at=at(99))

    found = compare(a, b)

    assert (found.a.times.waited, found.a.times.ran, found.a.times.total) == (3, 2, 5)
    assert (found.b.times.waited, found.b.times.ran, found.b.times.total) == (5, 4, None)


def test_errors_are_counted_by_their_cause() -> None:
    other = error(1, fingerprint="0" * 15 + "2", type="KeyError")
    a = job(1, JobState.FAILED, errors=(other, error(2), error(3)))
    b = job(2, JobState.FAILED, errors=(error(4, traceback="x"), {"unreadable": "no JSON"}))

    found = compare(a, b)

    assert [(one.type, one.a, one.b) for one in found.errors] == [
        ("ValueError", 2, 1), ("KeyError", 1, 0), ("no JSON", 0, 1)
    ]  # fmt: skip
    assert found.a.frames == (
        'File "/srv/shop/mail.py", line 3, in send\ndeliver(order)\n~~~~~~~^^^^^^^',
        'File "/srv/shop/smtp.py", line 9, in deliver\nwith smtplib.SMTP(host) as smtp:',
    )
    assert not found.same_frames
    assert compare(a, a).same_frames
    assert compare(a, a).itself


@pytest.mark.parametrize("traceback", ["", "x", "Traceback", '  File "a", line', "    a\n" * 9, "\n" * 99])
def test_a_traceback_without_frames_has_none(traceback: str) -> None:
    assert innermost_frames(traceback, 3) == ()


def test_the_last_lines_of_the_last_log_are_compared_without_their_times() -> None:
    def log(*events: str, seconds: float = 0.0) -> AttemptLog:
        return AttemptLog(1, tuple(LogLine(1, at(seconds), "info", event, {}) for event in events), 2)

    events = [str(number) for number in range(MAX_LINES + 5)]
    found = compare(job(1), job(2), logs={1: [log("old"), log(*events)], 2: [log(*events[5:], seconds=9), log()]})

    assert found.same_log
    assert found.a.log
    assert (found.a.log.dropped, found.a.log.lines[0].event) == (7, "5")
    assert not compare(job(1), job(2), logs={1: [log("a")]}).same_log


def test_without_arguments_none_are_compared() -> None:
    assert compare(job(args={"a": 1}), job(args={}), arguments=False).arguments is None
    assert compare(job(args={"a": 1}), job(args={})).arguments is not None


def test_a_duration_is_compared_with_what_is_usual() -> None:
    typical = Typical(2.0, 10.0, 7)
    assert (typical.ratio(5.0), typical.ratio(None), Typical(0.0, 0.0, 1).ratio(1.0)) == (2.5, None, None)
    assert (typical.beyond(10.5), typical.beyond(11.0), typical.beyond(None)) == (False, True, False)


def ended(database: Database, number: int, state: str = "completed", **columns: Any) -> None:
    values = {"task": "shop.send", "queue": "mail", "is_hook": False} | columns
    database.connect().execute(
        "INSERT INTO qworker.job_history (id, state, queue, task, args, attempt, priority, crashes, node_losses,"
        " is_hook, enqueued_at, finished_at, ring_day) VALUES (%(id)s, %(state)s, %(queue)s, %(task)s, '{}', 1, 5, 0,"
        " 0, %(is_hook)s, now(), now(), qworker.history_day(now()))",
        {"id": number, "state": state, **values},
    )


def test_the_last_success_is_the_newest_of_the_same_task_and_queue(database: Database, search: Search) -> None:
    rows: list[dict[str, Any]] = [
        {}, {}, {"state": "cancelled"}, {"task": "shop.print"}, {"queue": "other"}, {"is_hook": True}
    ]  # fmt: skip
    for number, columns in enumerate(rows, start=1):
        ended(database, number, **columns)

    assert last_success(search, job(99), time_limit=1).job == 2
    assert last_success(search, job(2), time_limit=1).job == 1
    assert last_success(search, job(99, hook=True), time_limit=1).job == 6
    none = last_success(search, job(99, task="x"), time_limit=1)
    assert (none.job, none.cursor) == (None, None)


def test_a_search_that_stops_says_where(database: Database, search: Search) -> None:
    ended(database, 1)
    database.connect().execute(
        "INSERT INTO qworker.job_history (id, state, queue, task, args, attempt, priority, crashes, node_losses,"
        " is_hook, enqueued_at, finished_at, ring_day)"
        " SELECT 1000000 * n, 'completed', 'mail', 'other', '{}', 1, 5, 0, 0, false, now(), now(), 1"
        " FROM generate_series(1, 9) AS n"
    )
    first = last_success(search, job(99), time_limit=0)
    assert first.job is None
    assert first.looked_back_to
    assert last_success(search, job(99), cursor=first.cursor, time_limit=5).job == 1


def test_the_filter_of_successes_is_one_that_can_be_written() -> None:
    for wanted in (successes(job(task='a b"', queue="x,y")), successes(job(hook=True))):
        assert parse(str(wanted)) == wanted


def test_circumstances_are_read_of_what_is_still_stored(database: Database) -> None:
    with connect(database.dsn, "test") as conn:
        node = conn.execute(
            "INSERT INTO qworker.node (name, version, queues, worker_count, lease_seconds)"
            " VALUES ('web1', '1.2', '{}', 1, 30) RETURNING id"
        ).fetchone()
        conn.execute(
            "INSERT INTO qworker.deployment (version, first_seen) VALUES ('v1', '2026-11-01'), ('v2', '2026-11-28')"
        )
        conn.execute(
            "INSERT INTO qworker.job (id, state, task, overrides)"
            " VALUES (7, 'failed', 't', %s), (8, 'failed', 't', NULL)",
            [json.dumps({"timeout": 9})],
        )
        assert node
        found = Comparisons().read(
            conn, job(7, claimed_at=NOON, node=node[0]), job(8, errors=({"node": node[0]},)), job(9, node=5)
        )
    assert found[7] == Circumstances({"timeout": 9}, "web1", "1.2", "v1")
    assert found[8] == Circumstances({}, "web1", "1.2", None)
    assert found[9] == Circumstances()
