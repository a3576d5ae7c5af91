"""Triggers that a user might have on the table of jobs, and that refuse some of its rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

_FUNCTION = """
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = 'check_violation'; END $$
"""


@contextmanager
def refusing(conn: psycopg.Connection[Any], event: str, when: str, *, deferred: bool = False) -> Iterator[None]:
    """Have a trigger that refuses an event ("UPDATE") for some rows, at once or when the transaction commits."""
    timing = "DEFERRABLE INITIALLY DEFERRED " if deferred else ""
    kind = "CONSTRAINT TRIGGER" if deferred else "TRIGGER"
    conn.execute(_FUNCTION)
    conn.execute(
        f"CREATE {kind} refuse AFTER {event} ON qworker.job {timing}"
        f"FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION public.refuse()".encode()
    )
    try:
        yield
    finally:
        conn.execute("DROP FUNCTION public.refuse CASCADE")
