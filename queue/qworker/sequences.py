"""Detects sequences that are behind the numbers in use, and advances them."""

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import class_row

from qworker.db.statements import DEFAULT_SCHEMA, load


@dataclass(frozen=True, slots=True)
class StaleSequence:
    """A sequence that would return numbers that are already in use.

    This happens if a sequence was restarted, or restored without its table, and after the promotion of a logical
    replica: logical replication does not include sequences.
    """

    #: `job_id_seq` generates the ids, `job_seq` the order in a queue.
    sequence: str
    #: The last number that it returned.
    at: int
    #: The highest number in use.
    highest: int

    def __str__(self) -> str:
        return f"the sequence {self.sequence} is at {self.at}, but {self.highest} is in use"


def stale_sequences(conn: psycopg.Connection[Any], schema: str = DEFAULT_SCHEMA) -> list[StaleSequence]:
    """Return the sequences of the schema that are behind."""
    cursor = psycopg.Cursor(conn, row_factory=class_row(StaleSequence)).execute(load("admin", schema)["sequences"])
    return [sequence for sequence in cursor if sequence.at < sequence.highest]


def repair(conn: psycopg.Connection[Any], schema: str = DEFAULT_SCHEMA) -> list[StaleSequence]:
    """Advance the sequences that are behind to the highest number in use; return their previous positions."""
    found = stale_sequences(conn, schema)
    for sequence in found:
        parameters = {"sequence": f"{schema}.{sequence.sequence}", "number": sequence.highest}
        conn.execute(load("admin", schema)["advance"], parameters)
    return found
