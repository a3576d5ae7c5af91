"""The log lines of jobs: stored by the worker that has run them, read behind a cursor, and deleted in time."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from qworker import App
from qworker.job_logs import AttemptLines, AttemptLog, Cursor, JobLogs, LogLine, behind, merge
from tests.qworker.claimer import OTHER, TOKEN, Claimer

logs = JobLogs()
FIRST, SECOND = (datetime(2026, 1, 31, 9, minute, tzinfo=UTC) for minute in (0, 5))


def lines(*events: str) -> str:
    return json.dumps([{"event": event, "level": "info"} for event in events])


def log(claimed_at: datetime | None, *events: str, dropped: int = 0, running: bool = False) -> AttemptLog:
    made = tuple(LogLine(1, None, "info", event, {}) for event in events)
    return AttemptLog(1, made, dropped, claimed_at, running)


def events(found: list[AttemptLog]) -> list[list[str]]:
    return [[line.event for line in each.lines] for each in found]


def test_the_lines_of_a_claim_are_stored_and_no_others(claimer: Claimer) -> None:
    """A worker that has lost its claim can store nothing."""
    first, second, lost = claimer.insert(3)
    claimer.claim(2)
    claimer.claim(1, token=OTHER)
    ended = [AttemptLines(job, TOKEN, 1, 0, lines(f"of {job}")) for job in (first, second, lost)]
    assert logs.store(claimer.conn, ended) == 2
    (found,) = logs.stored(claimer.conn, first)
    assert events([found]) == [[f"of {first}"]]
    assert found.claimed_at == claimer.row(first)["claimed_at"]
    assert logs.stored(claimer.conn, lost) == []


def test_a_job_that_has_ended_with_its_transaction_has_its_lines(claimer: Claimer) -> None:
    (job,) = claimer.insert()
    claimer.claim(1)
    claimed_at = claimer.row(job)["claimed_at"]
    claimer.statements.acknowledge(claimer.conn, TOKEN, [job])
    assert logs.store(claimer.conn, [AttemptLines(job, TOKEN, 1, 3, lines("a"))]) == 1
    (found,) = logs.stored(claimer.conn, job)
    assert (found.claimed_at, found.dropped) == (claimed_at, 3)


def test_lines_of_a_row_edited_by_hand_are_read(claimer: Claimer) -> None:
    insert = (
        "INSERT INTO qworker.job_log (job, claimed_at, ended_at, attempt, dropped, ring_day, lines)"
        " VALUES (1, %s, now(), -7, -3, 0, %s)"
    )
    for at, value in (
        ("infinity", '{"a": 1}'),
        ("1970-01-01", "[7, null, {}]"),
        ("2026-01-31", '[{"event": {"a": 1}}]'),
    ):
        claimer.conn.execute(insert, (at, value))
    assert [len(each.lines) for each in logs.stored(claimer.conn, 1)] == [1, 1, 0]


def test_of_two_logs_of_an_attempt_the_longer_one_counts() -> None:
    running, ended = log(SECOND, "b", running=True), log(SECOND, "b", "c")
    assert merge([log(FIRST, "a")], [ended], [running]) == [log(FIRST, "a"), ended]
    assert merge([], [log(SECOND, "b")], [running]) == [log(SECOND, "b")]
    assert merge([log(None, "x"), log(None, "y")]) == [log(None, "x"), log(None, "y")]


def test_a_cursor_returns_each_line_once_through_attempts_and_dropped_lines() -> None:
    found, cursor = behind([log(FIRST, "a", "b")], Cursor())
    assert events(found) == [["a", "b"]]
    assert behind([log(FIRST, "a", "b")], cursor) == ([], cursor)
    # The ring has dropped the first line, and one that was never read.
    found, cursor = behind([log(FIRST, "d", "e", dropped=3), log(SECOND, "f")], cursor)
    assert [(each.dropped, [line.event for line in each.lines]) for each in found] == [(1, ["d", "e"]), (0, ["f"])]
    found, cursor = behind([log(FIRST, "d", "e", "late", dropped=3), log(SECOND, "f", "g")], cursor)
    assert events(found) == [["g"]]
    assert Cursor.parse(str(cursor)) == cursor


@pytest.mark.parametrize("text", ["", ".", "1", "1.", "1.2.3", "-1.2", "1.99999999999", f"{10**17}.1", "٣.1"])
def test_another_string_is_not_a_cursor(text: str) -> None:
    with pytest.raises(ValueError, match="is not a cursor"):
        Cursor.parse(text)


def followers(claimer: Claimer) -> list[Any]:
    return claimer.conn.execute("SELECT job FROM qworker.live_log ORDER BY job").fetchall()


def test_a_request_is_renewed_withdrawn_and_expires(claimer: Claimer) -> None:
    for job in (1, 1, 2):
        logs.request(claimer.conn, job)
    assert followers(claimer) == [(1,), (2,)]
    logs.withdraw(claimer.conn, 1)
    assert logs.delete_old(claimer.conn) == 0
    claimer.conn.execute("UPDATE qworker.live_log SET requested_at = now() - interval '2 minutes'")
    logs.request(claimer.conn, 2)
    assert logs.delete_old(claimer.conn) == 0
    claimer.conn.execute("UPDATE qworker.live_log SET requested_at = now() - interval '2 minutes'")
    assert logs.delete_old(claimer.conn) == 1


def test_what_a_node_writes_is_read_and_the_same_is_not_written_twice(claimer: Claimer) -> None:
    (job,) = claimer.insert()
    claimer.claim(1)
    logs.write(claimer.conn, job, TOKEN, 1, count=1, lines=lines("nobody follows"))
    assert logs.live(claimer.conn, job) == ([], None)
    logs.request(claimer.conn, job)
    assert logs.live(claimer.conn, job) == ([], None)
    versions = set()
    for _ in range(2):
        logs.write(claimer.conn, job, TOKEN, 1, dropped=2, count=2, lines=lines("a", "b"))
        versions |= set(claimer.conn.execute("SELECT xmin::text FROM qworker.live_log").fetchall())
    assert len(versions) == 1
    logs.write(claimer.conn, job, OTHER, 2, count=1, lines=lines("of a worker that has lost the job"))
    (found,), problem = logs.live(claimer.conn, job)
    assert (events([found]), found.dropped, found.running, problem) == ([["a", "b"]], 2, True, None)


def test_a_page_of_an_attempt_since_a_cursor_has_the_attempt_itself(claimer: Claimer, app: App) -> None:
    (job,) = claimer.insert()
    claimer.claim(1)
    logs.store(claimer.conn, [AttemptLines(job, TOKEN, 1, 0, lines("a"))])
    first = app.admin.lines_after(job)
    assert events(list(first.attempts)) == [["a"]]
    claimer.conn.execute("UPDATE qworker.job_log SET lines = %s", (lines("a", "b"),))
    assert events(list(app.admin.lines_after(job, first.cursor).attempts)) == [["b"]]
    assert events(app.admin.logs(job)) == [["a", "b"]]
    assert timedelta(0) <= datetime.now(UTC) - Cursor.parse(first.cursor).attempt < timedelta(minutes=5)
