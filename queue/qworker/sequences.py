"""The numbers of jobs: whether the sequences that give them out are behind what is in use, and how they catch up."""

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from qworker.db.statements import DEFAULT_SCHEMA, load


@dataclass(frozen=True, slots=True)
class StaleSequence:
    """A sequence that will give out numbers a second time.

    It happens with a sequence that was restarted or restored apart from its table, and on a logical replica that became
    the primary: logical replication leaves sequences out.
    """

    #: `job_id_seq` gives out ids, `job_seq` places in the queue.
    sequence: str
    #: The last number it gave out.
    at: int
    #: The highest number in use.
    highest: int

    def __str__(self) -> str:
        return f"the sequence {self.sequence} is at {self.at}, but {self.highest} is in use"


def stale_sequences(conn: psycopg.Connection[Any], schema: str = DEFAULT_SCHEMA) -> list[StaleSequence]:
    """Return the sequences of the schema that are behind."""
    rows = psycopg.Cursor(conn, row_factory=tuple_row).execute(load("admin", schema)["sequences"]).fetchall()
    return [StaleSequence(*row) for row in rows if row[1] < row[2]]


def repair(conn: psycopg.Connection[Any], schema: str = DEFAULT_SCHEMA) -> list[StaleSequence]:
    """Move the sequences that are behind to the highest number in use; return those moved, as they were."""
    found = stale_sequences(conn, schema)
    for sequence in found:
        parameters = {"sequence": f"{schema}.{sequence.sequence}", "number": sequence.highest}
        conn.execute(load("admin", schema)["advance"], parameters)
    return found
