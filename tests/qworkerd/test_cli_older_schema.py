"""Commands that read, over a schema that lacks what a later migration creates: each names the way out."""

import psycopg
import pytest

from qworker.migrations import migrate
from tests.database import Database
from tests.qworkerd.conftest import Command

#: What an older schema lacks, and commands that read it.
LACKING = {
    "ALTER TABLE qworker.stat DROP COLUMN run_histogram": [
        "stats", "stats --json", "queues stats", "queues stats --json", "top --once",
    ],
    "DROP FUNCTION qworker.buckets": ["stats --json"],
    "DROP TABLE qworker.error_group": ["errors list", "top --once --tab failures"],
    "DROP TABLE qworker.audit": ["audit"],
    "DROP TABLE qworker.operation": ["operations list", "operations show 1"],
    "DROP TABLE qworker.job_log": ["jobs logs 1"],
    "ALTER TABLE qworker.node DROP COLUMN lease_seconds": ["workers", "ping", "top --once --tab nodes"],
}  # fmt: skip
CASES = [(lacking, words) for lacking, commands in LACKING.items() for words in commands]


@pytest.fixture
def older(empty_database: Database) -> Database:
    with psycopg.connect(empty_database.dsn) as conn:
        migrate(conn)
        conn.execute("INSERT INTO qworker.job (queue, task) VALUES ('mail', 'send')")
    return empty_database


@pytest.mark.parametrize(("lacking", "words"), CASES)
def test_a_command_that_reads_names_the_migration(command: Command, older: Database, lacking: str, words: str) -> None:
    older.connect().execute(f"{lacking} CASCADE".encode())
    done = command(*words.split(), env={"QWORKER_DSN": older.dsn})
    assert (done.exit_code, done.stdout) == (78, ""), done.stderr
    assert "is missing or older than this code (" in done.stderr
    assert done.stderr.rstrip().endswith("does not exist): run `qworker db migrate`")
