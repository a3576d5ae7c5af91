"""Triggers that suppress what is done to some rows of qworker, without an error."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

_FUNCTION = """
CREATE FUNCTION public.suppress() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN {row}; END $$
"""


@contextmanager
def suppressing(
    conn: psycopg.Connection[Any], event: str, when: str = "true", *, row: str = "NULL", table: str = "job"
) -> Iterator[None]:
    """Have a trigger that returns `row` before an event ("UPDATE") for some rows."""
    conn.execute(_FUNCTION.format(row=row).encode())
    conn.execute(
        f"CREATE TRIGGER suppress BEFORE {event} ON qworker.{table} FOR EACH ROW WHEN ({when}) "
        "EXECUTE FUNCTION public.suppress()".encode()
    )
    try:
        yield
    finally:
        conn.execute("DROP FUNCTION public.suppress CASCADE")
