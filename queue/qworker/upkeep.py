"""What `qworker db maintain` does: delete what is too old, drop indexes that were left behind, gather statistics."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg.sql import SQL, Identifier

from qworker.audit import Audit
from qworker.db.statements import DEFAULT_SCHEMA, Database, Statements, load
from qworker.error_groups import ErrorGroups
from qworker.maintenance import Maintenance
from qworker.rights import TABLES
from qworker.tallies import Tallies

#: Detail of the statistics (default_statistics_target). A node must not read much at a time.
FULL_TARGET, NODE_TARGET = 100, 10
#: How long measurements of the size of the database are kept (days).
SIZE_DAYS = 40
#: An id below that of every job.
_MIN_ID = -(2**63)


@dataclass(frozen=True, slots=True)
class Step:
    """What one step has done."""

    name: str
    #: How many rows were deleted, indexes dropped or tables analyzed.
    done: int
    #: Why it could not be completed; None if it was.
    problem: str | None = None


class Upkeep(Statements):
    """The statements for tables and indexes."""

    __slots__ = ("_schema",)

    def __init__(self, schema: str = DEFAULT_SCHEMA) -> None:
        super().__init__("upkeep", schema)
        self._schema = schema

    def analyze(self, database: Database, target: int, timeout: float | None = None) -> None:
        """Gather statistics on the history as a whole, in at most `timeout` seconds; raises QueryCanceled after that.

        Autovacuum analyzes the days of the history, and never the partitioned table.
        """
        with self._limited(database, timeout):
            self._rows(database, "analyze", target=target)

    def measure(self, database: Database, timeout: float | None = None) -> bool:
        """Note the size of the database, once a day; return whether it was done. Raises QueryCanceled as above."""
        with self._limited(database, timeout):
            return self._count(database, "measure", days=SIZE_DAYS) > 0

    @contextmanager
    def _limited(self, database: Database, timeout: float | None) -> Iterator[None]:
        """Limit the statements of a transaction."""
        with database.transaction():
            if timeout is not None:
                self._rows(database, "limit", statement_timeout=str(round(timeout * 1000)))
            yield

    def leftovers(self, database: Database) -> list[str]:
        """Return the indexes on our tables that a failed REINDEX CONCURRENTLY has left behind."""
        return self._column(database, "leftovers", tables=list(TABLES))

    def drop(self, database: Database, index: str) -> None:
        """Drop an index without blocking others; needs the owner of the schema and a connection in autocommit mode."""
        template = SQL(load("upkeep", self._schema)["drop"])
        database.execute(template.format(index=Identifier(self._schema, index)))


def maintain(database: Database, schema: str = DEFAULT_SCHEMA) -> list[Step]:
    """Do everything at once that nodes do bit by bit, and what only the owner may do; may be repeated at any time.

    database: in autocommit mode, with a lock_timeout. Nodes may run meanwhile.
    """
    maintenance, audit = Maintenance(schema), Audit(schema)
    errors, tallies, upkeep = ErrorGroups(schema), Tallies(schema), Upkeep(schema)
    return [
        _deleted("old entries of the audit", lambda: audit.delete_old(database)),
        _deleted("old statistics", lambda: tallies.delete_old(database)),
        _deleted("old errors by group", lambda: errors.delete_old(database)),
        _deleted("expired unique keys", lambda: maintenance.delete_expired_keys(database)),
        _unheld_keys(database, maintenance),
        _dropped(database, upkeep),
        _analyzed(database, upkeep),
    ]


def _deleted(name: str, step: Callable[[], int]) -> Step:
    """Repeat a statement until it finds no row."""
    total = 0
    while found := step():
        total += found
    return Step(name, total)


def _unheld_keys(database: Database, maintenance: Maintenance) -> Step:
    """Delete the unique keys of jobs that have ended."""
    before, after = maintenance.count_keys(database), _MIN_ID
    while (checked := maintenance.delete_unheld_keys(database, after)) is not None:
        after = checked
    return Step("unique keys of jobs that are gone", max(0, before - maintenance.count_keys(database)))


def _dropped(database: Database, upkeep: Upkeep) -> Step:
    done, problems = 0, []
    for index in upkeep.leftovers(database):
        try:
            upkeep.drop(database, index)
            done += 1
        except (psycopg.errors.LockNotAvailable, psycopg.errors.InsufficientPrivilege) as error:
            problems.append(f"{index}: {error.diag.message_primary}")
    return Step("invalid indexes left by REINDEX CONCURRENTLY", done, "; ".join(problems) or None)


def _analyzed(database: Database, upkeep: Upkeep) -> Step:
    try:
        upkeep.analyze(database, FULL_TARGET)
    except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled) as error:
        return Step("tables analyzed: job_history", 0, error.diag.message_primary)
    return Step("tables analyzed: job_history", 1)
