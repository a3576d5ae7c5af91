"""A database with many millions of jobs, written in minutes: see crowd.sql."""

import re
from pathlib import Path
from typing import Any

import psycopg

Connection = psycopg.Connection[tuple[Any, ...]]

#: Ids that one statement writes.
_SLICE = 500_000


def fill(database: Connection, jobs: int) -> None:
    """Write about so many unfinished jobs and so many finished ones; have everything indexed, vacuumed and analyzed."""
    statements, total = _statements(), 2 * jobs
    database.execute(statements["crowd"])
    indexes = database.execute(statements["indexes"]).fetchall()
    for name, _ in indexes:
        database.execute(f"DROP INDEX {name}".encode())
    for first in range(1, total + 1, _SLICE):
        values = {"first": first, "last": min(total, first + _SLICE - 1), "total": total}
        for name in ("jobs", "history"):
            statement = statements[name]
            for variable, value in values.items():
                statement = statement.replace(b":" + variable.encode(), b"%d" % value)
            database.execute(statement)
        print(f"{values['last']:,} of {total:,}", end="\r", flush=True)
    for _, definition in indexes:
        database.execute(definition.encode())
    for name in statements:
        if name.startswith("statistics"):
            database.execute(statements[name])
    for sequence in ("job_id_seq", "job_seq"):
        database.execute(f"SELECT setval('qworker.{sequence}', %s)".encode(), (total,))
    database.execute("VACUUM ANALYZE")
    database.execute("SELECT qworker.analyze_history(100)")


def _statements() -> dict[str, bytes]:
    parts = re.split(r"^-- name: (\w+)\n", Path(__file__).with_suffix(".sql").read_text(), flags=re.MULTILINE)
    return {name: text.encode() for name, text in zip(parts[1::2], parts[2::2], strict=True)}
