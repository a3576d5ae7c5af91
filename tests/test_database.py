"""The fixtures that give tests a database."""

import psycopg
import pytest

from tests.database import Database

COUNT = "SELECT count(*) FROM qworker.job"
ADD = "INSERT INTO qworker.job (task) VALUES ('t')"


def test_emptying_deletes_jobs_and_keeps_the_schema(database: Database) -> None:
    conn = database.connect()
    conn.execute(ADD)
    database.empty()
    again = database.connect()
    assert again.execute(COUNT).fetchone() == (0,)
    assert again.execute("SELECT count(*) > 0 FROM qworker.migration").fetchone() == (True,)


def test_emptying_does_not_wait_for_a_transaction_left_open(database: Database) -> None:
    conn = psycopg.connect(database.dsn)
    conn.execute(ADD)
    database.empty()
    with pytest.raises(psycopg.OperationalError):
        conn.execute("SELECT 1")
    conn.close()


def test_a_fresh_database_is_migrated(postgresql: psycopg.Connection[tuple[int]]) -> None:
    assert postgresql.execute(COUNT).fetchone() == (0,)


def test_an_empty_database_has_no_schema(empty_database: Database) -> None:
    assert empty_database.connect().execute("SELECT to_regnamespace('qworker')").fetchone() == (None,)
