"""The work for the whole cluster that any node may do."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from qworker.db.arrays import integer_array, text_array
from qworker.db.statements import DEFAULT_SCHEMA, Database, Statements


class EndedJob(NamedTuple):
    """A job that a statement has moved to the history."""

    id: int
    queue: str
    task: str
    #: Whether it was cancelled because it had expired.
    expired: bool = False


class RingDay(NamedTuple):
    """A day of a ring of 32 days."""

    #: The table: job_history or job_log.
    ring: str
    #: Days since 1970-01-01 (UTC), modulo 32.
    day: int


class Maintenance(Statements):
    """The statements for due, expired and failed jobs, the history and unique keys; each is one commit."""

    __slots__ = ()

    def __init__(self, schema: str = DEFAULT_SCHEMA) -> None:
        super().__init__("maintenance", schema)

    def promote(
        self, database: Database, due_from: float, at: float | None = None, *, limit: int = 1000,
        excluded: Iterable[int] = (),
    ) -> list[str]:  # fmt: skip
        """Make due jobs available; return their queues."""
        return self._column(
            database, "promote", due_from=due_from, at=at, limit=limit, excluded=integer_array(excluded)
        )

    def first_due(self, database: Database, due_from: float, excluded: Iterable[int] = ()) -> int | None:
        """Return the job that `promote` would update first."""
        return self._number(database, "first_due", due_from=due_from, at=None, excluded=integer_array(excluded))

    def expire(
        self, database: Database, *, at: float | None = None, limit: int = 1000, excluded: Iterable[int] = ()
    ) -> list[EndedJob]:
        """Cancel jobs that have expired, or were released after a cancellation was requested; return them."""
        return self._records(database, "expire", EndedJob, at=at, limit=limit, excluded=integer_array(excluded))

    def first_expired(self, database: Database, excluded: Iterable[int] = ()) -> int | None:
        """Return the job that `expire` would end first."""
        return self._number(database, "first_expired", at=None, excluded=integer_array(excluded))

    def discard_failed(
        self, database: Database, keep: float, *, limit: int = 1000, excluded: Iterable[int] = ()
    ) -> list[EndedJob]:
        """Move jobs that failed longer ago than `keep` seconds to the history; return them."""
        parameters = {"keep": keep, "limit": limit, "excluded": integer_array(excluded)}
        return self._records(database, "discard_failed", EndedJob, **parameters)

    def first_discarded(self, database: Database, keep: float, excluded: Iterable[int] = ()) -> int | None:
        """Return the job that `discard_failed` would move first."""
        return self._number(database, "first_discarded", keep=keep, excluded=integer_array(excluded))

    def expired_days(
        self, database: Database, *, history_days: int, log_days: int, at: float | None = None
    ) -> list[RingDay]:
        """Return the days of the rings that are more days old than they are kept, and not empty."""
        parameters = {"history_days": history_days, "log_days": log_days, "at": at}
        return self._records(database, "expired_days", RingDay, **parameters)

    def truncate_day(self, database: Database, ring: str, day: int) -> bool:
        """Truncate a day unless it is empty; raises LockNotAvailable instead of waiting for, say, a pg_dump."""
        return bool(self._scalar(database, "truncate_day", ring=ring, day=day))

    def delete_expired_keys(self, database: Database) -> int:
        """Delete keys whose period has ended; return their number, at most 1,000."""
        return self._count(database, "delete_expired_keys")

    def delete_unheld_keys(self, database: Database, after: int) -> int | None:
        """Delete keys of jobs above `after` that have ended; return the highest job checked, None at the end."""
        return self._number(database, "delete_unheld_keys", after=after)

    def count_keys(self, database: Database) -> int:
        """Return the number of keys that are held while their jobs are unfinished."""
        return int(self._scalar(database, "count_keys"))

    def flush(self, database: Database) -> None:
        """Delete all jobs, keys, schedules and settings of queues; for tests."""
        self._count(database, "flush")

    # Rows that no statement writes

    def needs_repair(
        self, database: Database, node: int, age: float, queues: Sequence[str], priorities: Sequence[int]
    ) -> bool:
        """Return whether there is such a row, or a claim of the node that is older than `age` seconds."""
        lanes = {"queues": text_array(queues), "priorities": integer_array(priorities)}
        return bool(self._scalar(database, "needs_repair", node=node, age=age, **lanes))

    def renumber(self, database: Database, queues: Sequence[str], priorities: Sequence[int]) -> list[int]:
        """Give available jobs a new seq if no claim would find theirs; return their ids."""
        parameters = {"queues": text_array(queues), "priorities": integer_array(priorities)}
        return self._column(database, "renumber", **parameters)

    def end_invalid(self, database: Database) -> list[int]:
        """Discard jobs whose state is none of an unfinished job; return their ids."""
        return self._column(database, "end_invalid")

    def date_failures(self, database: Database) -> list[int]:
        """Set the time of failed jobs that have none; return their ids."""
        return self._column(database, "date_failures")
