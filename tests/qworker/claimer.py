"""A worker's hand in tests: makes jobs, claims them, and looks at them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Self

import psycopg

from qworker.claims import ClaimedJob, Claims
from qworker.db.connection import connect
from tests.database import Database

TOKEN, OTHER = 7, 8
NOW = datetime.now(UTC)


class Claimer:
    """One worker's claims on a connection as workers have it: every priority of its queues."""

    def __init__(self, database: Database, queues: Sequence[str] = ("default",)) -> None:
        self.conn = connect(database.dsn, "test")
        self.statements = Claims()
        self.queues = [queue for queue in queues for _ in range(10)]
        self.priorities = list(range(10)) * len(queues)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.conn.close()

    def insert(self, count: int = 1, queue: str = "default", priority: int = 5) -> list[int]:
        """Make jobs; return their ids in the order of their places."""
        rows = self.conn.execute(
            "INSERT INTO qworker.job (task, queue, priority) SELECT 'noop', %s, %s FROM generate_series(1, %s)"
            " RETURNING id",
            (queue, priority, count),
        ).fetchall()
        return [row[0] for row in rows]

    def schedule(self, *seconds: float) -> list[int]:
        """Make jobs that are due this many seconds after NOW."""
        rows = self.conn.execute(
            "INSERT INTO qworker.job (task, state, run_at) SELECT 'noop', 'scheduled', %s + make_interval(secs => s)"
            "  FROM unnest(%s::float8[]) AS s RETURNING id",
            (NOW, list(seconds)),
        )
        return [row[0] for row in rows]

    def claim(self, limit: int, *, token: int = TOKEN, cursor: int = 0) -> list[ClaimedJob]:
        """Claim behind a cursor, and put the rows in the order in which they are run."""
        rows = self.statements.claim(
            self.conn, node=1, token=token, queues=self.queues, priorities=self.priorities,
            cursors=[cursor] * len(self.queues), limit=limit,
        )  # fmt: skip
        return sorted((ClaimedJob(*row) for row in rows), key=lambda job: (job.priority, job.seq))

    def row(self, job: int) -> dict[str, Any]:
        """Return everything the table of unfinished jobs holds of one."""
        with self.conn.cursor(row_factory=psycopg.rows.dict_row) as cursor:
            found = cursor.execute("SELECT * FROM qworker.job WHERE id = %s", (job,)).fetchone()
        assert found is not None
        return found
