"""Say when the sequences that number jobs are behind: numbers are then given out a second time."""

from typing import Any

import psycopg

from qworker.db.errors import command
from qworker.sequences import behind
from qworkerd import log


def report(database: psycopg.Connection[tuple[Any, ...]], schema: str) -> None:
    """Log each sequence that is behind; the command in the hint mends it."""
    for sequence in behind(database, schema):
        log.get().error(
            "sequence.behind", sequence=sequence.sequence, at=sequence.at, highest=sequence.highest,
            hint=f"numbers are given out a second time: run `{command('repair', schema)}`",
        )  # fmt: skip
