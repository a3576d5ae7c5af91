"""A database as a shop has it, for pictures and for tests of pages with data."""

from pathlib import Path

import psycopg

from tests.counted import add_sums

SCRIPT = Path(__file__).with_suffix(".sql")


def fill(dsn: str) -> None:
    """Fill an empty database that has the schema."""
    with psycopg.connect(dsn) as conn:
        conn.execute(SCRIPT.read_text(encoding="utf-8"))
        add_sums(conn)
