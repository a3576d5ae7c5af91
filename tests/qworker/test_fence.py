"""What a worker writes names the token of its claim: under another it changes nothing, and it waits for nobody."""

from collections.abc import Callable, Collection
from typing import Any

import psycopg
import pytest

from qworker.claims import Claims
from tests.database import Database
from tests.qworker.claimer import OTHER, TOKEN, Claimer

Connection = psycopg.Connection[tuple[Any, ...]]


WRITES: dict[str, Callable[[Claims, Connection, int, int], Collection[int]]] = {
    "acknowledge": lambda claims, conn, token, job: claims.acknowledge(conn, token, [job]),
    "release": lambda claims, conn, token, job: claims.release(conn, token, [job]),
    "retry": lambda claims, conn, token, job: claims.retry(conn, token, job, delay=0, error="{}"),
    "snooze": lambda claims, conn, token, job: claims.snooze(conn, token, job, delay=0),
    "fail": lambda claims, conn, token, job: claims.fail(conn, token, job, error="{}", hook=True),
    "finish": lambda claims, conn, token, job: claims.end(conn, token, job, state="cancelled", error=None, duration=0),
    "progress": lambda claims, conn, token, job: claims.progress(conn, token, job, '{"fraction": 1}'),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_write_under_another_token_changes_nothing(claimer: Claimer, write: str) -> None:
    (job,) = claimer.insert()
    claimer.claim(1)
    before = claimer.row(job)
    assert list(WRITES[write](claimer.statements, claimer.conn, OTHER, job)) == []
    assert claimer.row(job) == before
    assert claimer.conn.execute("SELECT count(*) FROM qworker.jobs").fetchone() == (1,)
    assert list(WRITES[write](claimer.statements, claimer.conn, TOKEN, job)) == [job]


@pytest.mark.parametrize("write", [name for name in WRITES if name != "progress"])
def test_a_write_can_be_repeated_and_does_nothing_the_second_time(claimer: Claimer, write: str) -> None:
    (job,) = claimer.insert()
    claimer.claim(1)
    assert list(WRITES[write](claimer.statements, claimer.conn, TOKEN, job)) == [job]
    after = claimer.conn.execute("SELECT * FROM qworker.jobs ORDER BY id").fetchall()
    assert list(WRITES[write](claimer.statements, claimer.conn, TOKEN, job)) == []
    assert claimer.conn.execute("SELECT * FROM qworker.jobs ORDER BY id").fetchall() == after


@pytest.mark.parametrize("write", WRITES)
def test_a_write_does_not_wait_for_a_row_that_somebody_has_locked(
    claimer: Claimer, database: Database, write: str
) -> None:
    (job,) = claimer.insert()
    claimer.claim(1)
    with database.connect(autocommit=False) as stranger:
        stranger.execute("SELECT FROM qworker.job WHERE id = %s FOR UPDATE", (job,))
        claimer.conn.execute("SET lock_timeout = '1s'")
        assert list(WRITES[write](claimer.statements, claimer.conn, TOKEN, job)) == []
        assert claimer.statements.still_claimed(claimer.conn, TOKEN, [job]) == {job}
    assert list(WRITES[write](claimer.statements, claimer.conn, TOKEN, job)) == [job]


def test_one_locked_row_holds_up_no_other_of_the_batch(claimer: Claimer, database: Database) -> None:
    jobs = claimer.insert(100)
    claimer.claim(100)
    with database.connect(autocommit=False) as stranger:
        stranger.execute("SELECT FROM qworker.job WHERE id = %s FOR UPDATE", (jobs[50],))
        settled = claimer.statements.acknowledge(claimer.conn, TOKEN, jobs)
        assert sorted(settled) == jobs[:50] + jobs[51:]
    assert claimer.statements.acknowledge(claimer.conn, TOKEN, jobs) == [jobs[50]]


def test_an_acknowledgement_whose_answer_was_lost_is_found_in_the_history(claimer: Claimer) -> None:
    mine, another = claimer.insert(2)
    claimer.claim(1)
    claimer.claim(1, token=OTHER)
    assert claimer.statements.still_claimed(claimer.conn, TOKEN, [mine, another]) == {mine}
    claimer.statements.acknowledge(claimer.conn, TOKEN, [mine])
    claimer.statements.acknowledge(claimer.conn, OTHER, [another])
    assert claimer.statements.still_claimed(claimer.conn, TOKEN, [mine, another]) == set()
    assert claimer.statements.already_archived(claimer.conn, TOKEN, [mine, another]) == {mine}
