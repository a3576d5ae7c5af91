"""Failed attempts are counted exactly once, by group, and groups are muted, resolved and reopened."""

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from qworker import acting_as
from qworker.claims import Claims
from qworker.db.connection import connect
from qworker.error_groups import MAX_GROUPS, ErrorGroup, ErrorGroupNotFound, ErrorGroups, GroupState
from qworker.fingerprint import fingerprint, to_hex, without_message
from qworker.recovery import Recovery
from tests.database import Database
from tests.qworker.claimer import TOKEN, Claimer

groups = ErrorGroups()


def error(message: str = "no", kind: str = "E", *, task: str = "noop", **facts: Any) -> str:
    key = to_hex(fingerprint(task, kind, message, "m:f"))
    group = {"type": kind, "message": message, "frame": "m:f"} | facts
    return json.dumps({"type": kind, "message": message, "fingerprint": key, "group": group})


def fail(claimer: Claimer, *errors: str) -> list[int]:
    """Have a job fail with each of the errors; return the jobs."""
    jobs = claimer.insert(len(errors))
    claimer.claim(len(errors))
    for job, text in zip(jobs, errors, strict=True):
        assert claimer.statements.fail(claimer.conn, TOKEN, job, error=text, hook=False) == {job: "failed"}
    return jobs


def fold(claimer: Claimer) -> list[ErrorGroup]:
    groups.fold(claimer.conn)
    return groups.find(claimer.conn)


FAILURES: dict[str, Callable[[Any, int], object]] = {
    "retry": lambda conn, job: Claims().retry(conn, TOKEN, job, delay=1.0, error=error()),
    "fail": lambda conn, job: Claims().fail(conn, TOKEN, job, error=error(), hook=False),
    "fail with a hook": lambda conn, job: Claims().fail(conn, TOKEN, job, error=error(), hook=True),
    "give up": lambda conn, job: Claims().give_up(conn, TOKEN, job, error()),
    "crash": lambda conn, job: Recovery().record_crash(conn, TOKEN, job, delay=0.0, error=error()),
    "loss": lambda conn, job: Recovery().record_node_loss(conn, TOKEN, job, 3, error()),
    "hook": lambda conn, job: Claims().end(conn, TOKEN, job, state="discarded", error=error(), duration=0.0),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_each_failed_attempt_is_counted_once(claimer: Claimer, kind: str) -> None:
    (job,) = claimer.insert()
    claimer.claim(1)
    FAILURES[kind](claimer.conn, job)
    FAILURES[kind](claimer.conn, job)  # its answer was lost
    (group,) = fold(claimer)
    assert (group.task, group.type, group.message, group.frame, group.state) == ("noop", "E", "no", "m:f", "open")
    assert (group.count, group.samples, group.first_job, group.queues) == (1, (job,), job, ("default",))
    assert group.fingerprint == to_hex(fingerprint("noop", "E", "no", "m:f"))
    assert sum(group.recent) == 1
    assert fold(claimer)[0].count == 1


def test_what_is_no_failure_is_not_counted(claimer: Claimer) -> None:
    jobs = claimer.insert(4)
    claimer.claim(4)
    claims = Claims()
    claims.acknowledge(claimer.conn, TOKEN, jobs[:1])
    claims.snooze(claimer.conn, TOKEN, jobs[1], delay=1.0)
    claims.release(claimer.conn, TOKEN, jobs[2:3])
    claims.end(claimer.conn, TOKEN, jobs[3], state="cancelled", error='{"type": "CancelInterrupt"}', duration=0.0)
    assert not groups.pending(claimer.conn)
    assert fold(claimer) == []


def test_an_attempt_that_ends_as_cancelled_is_not_counted(claimer: Claimer) -> None:
    (job,) = claimer.insert()
    claimer.claim(1)
    claimer.conn.execute("UPDATE qworker.job SET cancel_requested_at = now()")
    assert Claims().retry(claimer.conn, TOKEN, job, delay=1.0, error=error()) == {job: "cancelled"}
    assert not groups.pending(claimer.conn)


def test_the_jobs_of_a_lost_node_are_one_group_for_each_task(claimer: Claimer) -> None:
    claimer.insert(3)
    claimer.claim(3)
    Recovery().rescue(claimer.conn, 1, 5, '{"type": "NodeLost", "cause": "node-lost"}')
    (group,) = fold(claimer)
    assert (group.type, group.message, group.frame, group.count) == ("NodeLost", None, None, 3)


def test_a_group_keeps_first_and_last_release_and_its_last_jobs(claimer: Claimer) -> None:
    jobs = fail(claimer, *(error(release=f"v{number}") for number in range(4)))
    fold(claimer)
    jobs += fail(claimer, *(error(release=f"v{number}") for number in range(4, 7)))
    (group,) = fold(claimer)
    assert (group.count, group.first_release, group.last_release) == (7, "v0", "v6")
    assert (group.first_job, group.samples) == (jobs[0], tuple(jobs[:-6:-1]))


def test_a_resolved_group_reopens_when_the_error_occurs_again_and_a_muted_one_does_not(claimer: Claimer) -> None:
    fail(claimer, error("a"), error("b"))
    muted, resolved = sorted((group.message, group.fingerprint) for group in fold(claimer))
    with acting_as("ann", note="known"):
        assert groups.change(claimer.conn, muted[1], "muted")
        assert groups.change(claimer.conn, resolved[1], "resolved")
    assert not groups.change(claimer.conn, resolved[1], "resolved")
    fail(claimer, error("a"), error("b", release="v2"))
    assert [(new.fingerprint, new.is_new, new.release) for new in groups.fold(claimer.conn)[1]] == [
        (resolved[1], False, "v2")
    ]
    found = {group.message: group for group in groups.find(claimer.conn)}
    assert (found["a"].state, found["a"].count, found["a"].changed_by) == (GroupState.MUTED, 2, "ann")
    assert (found["b"].state, found["b"].reopened_release) == (GroupState.OPEN, "v2")
    assert found["b"].reopened_at == found["b"].last_seen
    actions = claimer.conn.execute("SELECT actor, action, target, note FROM qworker.audit ORDER BY id").fetchall()
    assert actions == [
        ("ann", "error.mute", {"errors": [muted[1]]}, "known"),
        ("ann", "error.resolve", {"errors": [resolved[1]]}, "known"),
    ]


def test_an_error_from_before_the_fix_does_not_reopen_its_group(claimer: Claimer) -> None:
    fail(claimer, error())
    (group,) = fold(claimer)
    fail(claimer, error())  # it occurs, and is counted after the group was resolved
    groups.change(claimer.conn, group.fingerprint, "resolved")
    (group,) = fold(claimer)
    assert (group.state, group.count, group.reopened_at) == ("resolved", 2, None)


def test_a_task_with_many_groups_gets_no_more_of_them(claimer: Claimer, monkeypatch: pytest.MonkeyPatch) -> None:
    letters = [chr(0x4E00 + number) for number in range(MAX_GROUPS + 50)]
    fail(claimer, *(error(letter) for letter in letters[: MAX_GROUPS + 20]))
    fold(claimer)
    fail(claimer, *(error(letter) for letter in letters[MAX_GROUPS + 10 :]), error(letters[0]))
    fold(claimer)
    found = groups.find(claimer.conn, limit=1000)
    assert len(found) == MAX_GROUPS + 1
    (rest,) = [group for group in found if group.message is None]
    assert rest.fingerprint == to_hex(without_message(fingerprint("noop", "E", "x", "m:f")))
    assert (rest.count, rest.type, rest.frame) == (60, "E", "m:f")
    assert sum(group.count for group in found) == MAX_GROUPS + 61
    assert groups.count_failed(claimer.conn, rest.fingerprint) == 60
    monkeypatch.setattr("qworker.error_groups.PAGE", 7)
    jobs = [job for page in groups.failed_pages(claimer.conn, rest.fingerprint) for job in page]
    assert len(jobs) == len(set(jobs)) == 60


def test_all_failed_jobs_of_a_group_are_found_once(claimer: Claimer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qworker.error_groups.PAGE", 3)
    jobs = fail(claimer, *[error("a")] * 7, error("b"))
    key = to_hex(fingerprint("noop", "E", "a", "m:f"))
    assert list(groups.failed_pages(claimer.conn, key)) == [jobs[:3], jobs[3:6], jobs[6:7]]
    assert list(groups.failed_pages(claimer.conn, key, limit=4)) == [jobs[:3], jobs[3:4]]
    pages = groups.failed_pages(claimer.conn, key)
    next(pages)
    fail(claimer, error("a"))  # fails after the first page was read
    assert [*next(pages), *next(pages)] == jobs[3:7]
    assert groups.count_failed(claimer.conn, key) == 8


def test_groups_are_selected_by_state_task_queue_and_time(claimer: Claimer) -> None:
    fail(claimer, error("a"), error("b"))
    fold(claimer)
    claimer.conn.execute(
        "UPDATE qworker.error_group SET last_seen = now() - interval '2 h', queues = '{mail}' WHERE message = 'a'"
    )

    def found(**wanted: Any) -> list[str | None]:
        return [group.message for group in groups.find(claimer.conn, **wanted)]

    assert found() == ["b", "a"]
    assert found(queue="mail") == ["a"]
    assert found(since=timedelta(hours=1)) == ["b"]
    assert found(task="other") == []
    assert found(states=["muted"]) == []
    assert found(states=["open", "muted"], limit=1) == ["b"]
    with pytest.raises(ValueError, match="closed"):
        found(states=["closed"])


@pytest.mark.parametrize("call", [groups.get, lambda conn, key: groups.change(conn, key, "open")])
def test_a_group_that_does_not_exist_is_an_error_with_its_fingerprint(claimer: Claimer, call: Any) -> None:
    with pytest.raises(ErrorGroupNotFound, match="00000000000000ab"):
        call(claimer.conn, "00000000000000ab")


def test_the_counts_of_ten_minutes_are_divided_into_periods(claimer: Claimer) -> None:
    fail(claimer, error())
    fold(claimer)
    claimer.conn.execute("UPDATE qworker.error_stat SET at = at - interval '100 min', count = 7")
    fail(claimer, error())
    fold(claimer)
    (group,) = groups.find(claimer.conn, period=timedelta(hours=4), bins=4)
    assert sorted(group.recent) == [0, 0, 1, 7]
    assert group.recent[3] == 1 or group.recent[2] == 1  # the ten minutes may have begun before the last hour


def test_nodes_that_count_at_the_same_time_count_each_error_once(database: Database, claimer: Claimer) -> None:
    for _ in range(10):
        fail(claimer, *(error(letter) for letter in "abcde" * 20))
    failed: list[BaseException] = []

    def count() -> None:
        try:
            with connect(database.dsn, "test") as conn:
                while groups.pending(conn):
                    groups.fold(conn, limit=7)
        except BaseException as caught:  # noqa: BLE001 - it is raised in the main thread
            failed.append(caught)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert [group.count for group in groups.find(claimer.conn)] == [200] * 5
    assert claimer.conn.execute("SELECT sum(count) FROM qworker.error_stat").fetchall() == [(1000,)]


def test_a_count_that_is_not_committed_is_repeated(database: Database, claimer: Claimer) -> None:
    fail(claimer, error())
    with connect(database.dsn, "test") as conn, conn.transaction(force_rollback=True):
        assert groups.fold(conn)[0] == 1
    assert [group.count for group in fold(claimer)] == [1]


def test_old_groups_and_counts_are_deleted(claimer: Claimer) -> None:
    fail(claimer, *(error(letter) for letter in "abcdef"))
    fold(claimer)
    age = "UPDATE qworker.error_group SET last_seen = now() - ascii(message) * interval '1 day'"
    claimer.conn.execute(age)
    claimer.conn.execute("UPDATE qworker.error_stat SET at = now() - interval '8 days' WHERE fingerprint < 0")
    old = claimer.conn.execute("SELECT count(*) FROM qworker.error_stat WHERE fingerprint < 0").fetchall()[0][0]
    assert groups.delete_old(claimer.conn, keep=99.5 * 86_400) == old + 3
    assert [group.message for group in groups.find(claimer.conn)] == ["a", "b", "c"]
    assert groups.delete_old(claimer.conn, keep=99.5 * 86_400, max_total=2) == 1
    assert [group.message for group in groups.find(claimer.conn)] == ["a", "b"]


@pytest.mark.parametrize(
    "facts", ["{}", '{"group": {}}', '{"group": {"type": "E", "message": "\\u001b[2J"}}', '{"type": null}']
)
def test_a_record_of_other_code_is_counted_too(claimer: Claimer, facts: str) -> None:
    fail(claimer, facts)
    assert [group.count for group in fold(claimer)] == [1]


def test_an_error_of_the_count_loses_nothing(claimer: Claimer) -> None:
    fail(claimer, error())
    claimer.conn.execute("ALTER TABLE qworker.error_stat ADD CONSTRAINT broken CHECK (count < 0) NOT VALID")
    try:
        with pytest.raises(psycopg.errors.CheckViolation):
            groups.fold(claimer.conn)
    finally:
        claimer.conn.execute("ALTER TABLE qworker.error_stat DROP CONSTRAINT broken")
    assert [group.count for group in fold(claimer)] == [1]
