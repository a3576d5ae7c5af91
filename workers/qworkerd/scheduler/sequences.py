"""Reports sequences that are behind the numbers in use, and would assign them again."""

from typing import Any

import psycopg

from qworker.db.errors import command
from qworker.sequences import stale_sequences
from qworkerd import log


def report(database: psycopg.Connection[tuple[Any, ...]], schema: str) -> None:
    """Log each sequence that is behind; the hint names the command that repairs it."""
    for sequence in stale_sequences(database, schema):
        log.get().error(
            "sequence.behind", sequence=sequence.sequence, at=sequence.at, highest=sequence.highest,
            hint=f"numbers in use would be assigned again: run `{command('repair', schema)}`",
        )  # fmt: skip
