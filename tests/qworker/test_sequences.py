"""Numbers that come a second time: jobs end all the same, and the sequences are found behind and mended."""

from contextlib import closing
from typing import Any

import psycopg
import pytest

from qworker import App
from qworker.admin import Admin
from qworker.db.pool import Pool
from qworker.sequences import repair, stale_sequences
from tests.database import Database
from tests.qworker.claimer import TOKEN, Claimer


def test_a_job_whose_id_stands_in_the_history_already_ends_and_its_newest_run_is_shown(database: Database) -> None:
    with Claimer(database) as claimer:
        for token, result in ((TOKEN, "old"), (TOKEN + 1, "new")):
            claimer.conn.execute("INSERT INTO qworker.job (id, task) VALUES (4711, 'noop')")
            claimer.claim(1, token=token)
            done = claimer.statements.acknowledge(claimer.conn, token, [4711], results=f'{{"4711": "{result}"}}')
            assert done == [4711]
    pool = Pool(database.dsn)
    try:
        assert Admin(pool).show(4711).result == "new"
        assert Admin(pool).wait(4711) == "new"
    finally:
        pool.close()


def test_an_id_that_stands_twice_is_shown_by_the_state_and_the_task_asked_for(database: Database) -> None:
    """The one in the history is older, even if it ended later: the id was free when the other was stored."""
    with Claimer(database) as claimer, closing(Pool(database.dsn)) as pool:
        claimer.conn.execute("INSERT INTO qworker.job (id, task) VALUES (4711, 'old')")
        claimer.claim(1)
        claimer.statements.acknowledge(claimer.conn, TOKEN, [4711])
        claimer.conn.execute(
            "INSERT INTO qworker.job (id, task, state, failed_at) VALUES (4711, 'new', 'failed', '2000-01-01')"
        )
        admin = Admin(pool)
        assert admin.show(4711).task == "new"
        assert [job.task for job in admin.find(state="failed")] == ["new"]
        assert [job.task for job in admin.find(state="completed")] == ["old"]
        assert [job.task for job in admin.find(task="old")] == ["old"]
        assert {job.task for job in admin.find()} == {"old", "new"}


def noop() -> None: ...


@pytest.mark.parametrize("options", [{}, {"unique": True}, {"delay": 1}, {"tags": ["a"]}])
def test_an_id_that_is_assigned_again_is_refused_with_the_command_that_helps(
    database: Database, options: dict[str, Any]
) -> None:
    with Claimer(database) as claimer, closing(App(database.dsn)) as app:
        claimer.conn.execute("INSERT INTO qworker.job (id, task) SELECT n, 'noop' FROM generate_series(1, 9) AS n")
        claimer.conn.execute("ALTER SEQUENCE qworker.job_id_seq RESTART")
        send = app.task(name="send")(noop).options(**options)
        with pytest.raises(psycopg.errors.UniqueViolation, match="run `qworker db repair`"):
            send.enqueue()
        if "unique" not in options:
            with pytest.raises(psycopg.errors.UniqueViolation, match="run `qworker db repair`"):
                send.enqueue_many([(), ()])
        repair(claimer.conn)
        send.enqueue()


def test_sequences_that_are_behind_are_found_and_mended(database: Database) -> None:
    with Claimer(database) as claimer:
        claimer.insert(3)
        assert stale_sequences(claimer.conn) == []
        claimer.conn.execute("ALTER SEQUENCE qworker.job_id_seq RESTART")
        claimer.conn.execute("ALTER SEQUENCE qworker.job_seq RESTART")
        assert {found.sequence for found in stale_sequences(claimer.conn)} == {"job_id_seq", "job_seq"}
        repair(claimer.conn)
        assert stale_sequences(claimer.conn) == []
        assert len(set(claimer.insert(3))) == 3


def test_a_sequence_is_behind_whose_next_number_is_in_use(database: Database) -> None:
    with Claimer(database) as claimer:
        claimer.conn.execute("ALTER SEQUENCE qworker.job_id_seq RESTART")
        claimer.conn.execute("ALTER SEQUENCE qworker.job_seq RESTART")
        assert stale_sequences(claimer.conn) == []
        claimer.insert()
        assert stale_sequences(claimer.conn) == []
        claimer.conn.execute("ALTER SEQUENCE qworker.job_id_seq RESTART")
        claimer.conn.execute("ALTER SEQUENCE qworker.job_seq RESTART")
        assert len(stale_sequences(claimer.conn)) == 2
        repair(claimer.conn)
        assert stale_sequences(claimer.conn) == []
        claimer.insert()


def test_no_sequence_follows_a_number_near_its_end(database: Database) -> None:
    """Moved there it would have no next number, and nothing could be enqueued any more."""
    with Claimer(database) as claimer:
        claimer.conn.execute("INSERT INTO qworker.job (id, seq, task) VALUES (%s, %s, 'noop')", [2**63 - 1] * 2)
        (job,) = claimer.insert()
        assert repair(claimer.conn) == []
        assert claimer.insert() > [job]


def test_ending_a_job_waits_for_nobody_who_has_locked_its_key(database: Database) -> None:
    with Claimer(database) as claimer, database.connect() as producer, producer.transaction():
        (job,) = claimer.insert()
        claimer.conn.execute("UPDATE qworker.job SET holds_key = true")
        claimer.conn.execute("INSERT INTO qworker.unique_key (task, key, job_id) VALUES ('noop', 'k', %s)", (job,))
        producer.execute("SELECT FROM qworker.unique_key FOR UPDATE")
        claimer.conn.execute("SET lock_timeout = '2s'")
        claimer.claim(1)
        assert claimer.statements.acknowledge(claimer.conn, TOKEN, [job]) == [job]
