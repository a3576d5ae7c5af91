"""Triggers that refuse what is done to some jobs."""

from typing import Any

import psycopg

#: What a trigger on UPDATE lets pass.
NOTHING, FAILURES = "false", "NEW.errors -> -1 ->> 'type' = 'EndRefused'"

#: In place of an error code: the trigger suppresses the change without an error.
SUPPRESSED = "NULL"


def choke(
    conn: psycopg.Connection[Any], jobs: list[int], *events: str, but: str = NOTHING, code: str = "P0001"
) -> None:
    """Refuse these events for these jobs."""
    refusal = f"RAISE 'no, never' USING ERRCODE = '{code}'" if code != SUPPRESSED else "RETURN NULL"
    body = f"BEGIN {refusal}; END"
    statements = [f"CREATE FUNCTION choke() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$"]
    for event in events:
        when = f"OLD.id = ANY ('{set(jobs)}')" + (f" AND ({but}) IS NOT TRUE" if event == "UPDATE" else "")
        statements.append(
            f"CREATE TRIGGER choke_{event} BEFORE {event} ON qworker.job FOR EACH ROW WHEN ({when})"
            " EXECUTE FUNCTION choke()"
        )
    for statement in statements:
        conn.execute(statement.encode(), prepare=False)
