"""Errors by group: failed attempts with the same cause, how often they occurred, and whether they are known."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from math import ceil
from typing import Any, Final

from qworker.actor import current_actor
from qworker.db.statements import DEFAULT_SCHEMA, Database, Statements
from qworker.errors import QworkerError
from qworker.filters import Filter
from qworker.filters.model import Term, Value
from qworker.fingerprint import MESSAGE_BITS, from_hex, to_hex, without_message
from qworker.job import to_datetime
from qworker.nearest import not_found

#: Maximum number of groups of one task; its further errors are grouped by type and frame only.
MAX_GROUPS: Final = 200
#: Maximum number of groups that are kept; those that occurred last stay.
MAX_TOTAL: Final = 10_000
#: Time after which a group that did not occur again is deleted (seconds).
KEEP: Final = 90 * 86_400.0
#: Counts are kept in parts of this length (seconds), and for this many days.
PART: Final = 600.0
STAT_DAYS: Final = 7
#: Number of rows that one statement counts or deletes.
BATCH: Final = 5_000
#: Maximum number of failed jobs that are counted for a group, and number of jobs in a page.
MAX_COUNTED, PAGE = 10_000, 500

_FIRST = -(2**63)
_CURSOR = re.compile("([0-9]{1,17})-([0-9a-f]{16})")


class GroupState(StrEnum):
    """What is known of a group of errors."""

    #: Not known yet, or known and not fixed.
    OPEN = "open"
    #: Known and accepted: it is counted, and stays out of the list.
    MUTED = "muted"
    #: Believed to be fixed: it reopens by itself if the error occurs again.
    RESOLVED = "resolved"


class ErrorGroupNotFound(QworkerError, LookupError):
    """There is no group of errors with this fingerprint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorGroup:
    """Errors with the same cause, counted by attempts. Counts are up to ten seconds old."""

    #: 16 hexadecimal digits; a failed attempt has them in its error record.
    fingerprint: str
    #: The name of the task.
    task: str
    #: The class of the exception; that of a worker that died is WorkerDied.
    type: str
    #: The message, with <n> for numbers and <s> for quoted values; None if it is not part of the key: the task has more
    #: than 200 groups, or the node was lost.
    message: str | None
    #: The innermost function of the application, module:function; None if no exception of the handler is the cause.
    frame: str | None
    state: GroupState
    #: The number of failed attempts since the group exists.
    count: int
    first_seen: datetime
    last_seen: datetime
    #: The release of the application (setting `release`) that failed first and last; None if it is not set.
    first_release: str | None
    last_release: str | None
    #: The queues of the jobs, at most ten.
    queues: tuple[str, ...]
    #: The job that failed first, and those that failed last, newest first. They may have been deleted.
    first_job: int
    samples: tuple[int, ...]
    #: When and by whom its state was changed by hand.
    changed_at: datetime | None
    changed_by: str | None
    #: When it occurred again after it had been resolved, and in which release.
    reopened_at: datetime | None
    reopened_release: str | None
    #: The numbers of errors in equal periods up to now, or of an interval that was asked for, oldest first; counts are
    #: kept in parts of ten minutes, for seven days.
    recent: tuple[int, ...]

    @property
    def cursor(self) -> str:
        """Where the groups after it begin in a list, for `ErrorGroups.find`."""
        return f"{round(self.last_seen.timestamp() * 1e6)}-{self.fingerprint}"


@dataclass(frozen=True, slots=True)
class FoldedGroup:
    """A group that a batch of errors has created or reopened."""

    fingerprint: str
    task: str
    type: str
    message: str | None
    #: The release in which it occurred again; None if it is new.
    release: str | None
    #: False: it was resolved, and has occurred again.
    is_new: bool


class ErrorGroups(Statements):
    """The statements for groups of errors; each is one commit."""

    __slots__ = ()

    def __init__(self, schema: str = DEFAULT_SCHEMA) -> None:
        super().__init__("error_groups", schema)

    def fold(
        self, database: Database, *, limit: int = BATCH, max_groups: int = MAX_GROUPS
    ) -> tuple[int, list[FoldedGroup]]:
        """Count up to `limit` failed attempts; return their number, and the groups that are new or reopened."""
        rows = self._rows(database, "fold", limit=limit, max_groups=max_groups)
        found = [FoldedGroup(to_hex(number), *rest) for _, number, *rest in rows if number is not None]
        return int(rows[0][0]), found

    def pending(self, database: Database) -> bool:
        """Return whether there are failed attempts that are not counted yet."""
        return bool(self._scalar(database, "pending"))

    def delete_old(
        self, database: Database, *, keep: float = KEEP, max_total: int = MAX_TOTAL, limit: int = BATCH
    ) -> int:
        """Delete old counts and groups, up to `limit` of each; return their number."""
        return int(self._scalar(database, "delete_old", keep=keep, max_total=max_total, limit=limit))

    def find(
        self, database: Database, *, states: Collection[GroupState | str] | None = None, queue: str | None = None,
        task: str | None = None, since: timedelta | None = None, period: timedelta = timedelta(days=1), bins: int = 24,
        limit: int = 50, fingerprint: str | None = None, below: str | None = None,
        between: tuple[datetime, datetime] | None = None,
    ) -> list[ErrorGroup]:  # fmt: skip
        """Return groups, those that occurred last first.

        since: only those that occurred within this time. period: the time of `recent`, divided into `bins` parts.
        below: the cursor of the last group of the page before; a group that occurs meanwhile moves to the first page.
        between: only those that occurred from the first of these times on until the second, see `Interval.of_errors`;
        `recent` is that of this time then, in up to `bins` parts of whole ten minutes. A group that is named by its
        fingerprint is returned in any case. Raises ValueError if `below` is not a cursor.
        """
        below_at, below_fingerprint = (None, None) if below is None else _position(below)
        now, width = float(self._scalar(database, "now")), period.total_seconds() / bins
        begin = until = None
        if between is not None:
            begin, until = (at.timestamp() for at in between)
            width = bar_width(until - begin, bins)
            bins = ceil((until - begin) / width)
        return self._records(
            database, "find", _group, states=None if states is None else [GroupState(state).value for state in states],
            queue=queue, task=task, seen_after=None if since is None else now - since.total_seconds(),
            since=now - period.total_seconds() if begin is None else begin, width=width, bins=bins, limit=limit,
            below_at=below_at, below_fingerprint=below_fingerprint, until=until,
            begin=begin if fingerprint is None else None,
            fingerprint=None if fingerprint is None else from_hex(fingerprint),
        )  # fmt: skip

    def get(self, database: Database, fingerprint: str, **options: Any) -> ErrorGroup:
        """Return a group; raises ErrorGroupNotFound."""
        for group in self.find(database, fingerprint=fingerprint, **options):
            return group
        raise _not_found(fingerprint)

    def change(self, database: Database, fingerprint: str, state: GroupState | str) -> bool:
        """Set the state of a group; return False if it already had it. Raises ErrorGroupNotFound."""
        wanted = GroupState(state)
        action = {"open": "error.reopen", "muted": "error.mute", "resolved": "error.resolve"}[wanted]
        before = self._scalar(
            database, "change", fingerprint=from_hex(fingerprint), state=wanted.value, action=action,
            **current_actor().parameters,
        )  # fmt: skip
        if before is None:
            raise _not_found(fingerprint)
        return bool(before != wanted)

    def failed_pages(self, database: Database, fingerprint: str, limit: int | None = None) -> Iterator[list[int]]:
        """Yield the ids of the group's jobs that are failed now, in pages; at most `limit` in all.

        A job that fails again meanwhile is not yielded twice.
        """
        number, until = from_hex(fingerprint), self._scalar(database, "now")
        last = number + (1 << MESSAGE_BITS) - 1 if number == without_message(number) else number
        position, left = (number, _FIRST), limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            rows = self._rows(
                database, "failed", fingerprint=number, last=last, after_fingerprint=position[0], after_id=position[1],
                until=until, limit=size,
            )  # fmt: skip
            if rows:
                yield [row[1] for row in rows]
            if len(rows) < size:
                return
            position, left = (rows[-1][0], rows[-1][1]), None if left is None else left - len(rows)

    def jobs(self, database: Database, fingerprint: str) -> Filter:
        """Return a filter for the jobs of a group; an operation with it is limited to those that failed before.

        A group without message has all messages of its type and frame that are not groups of their own now.
        """
        number = from_hex(fingerprint)
        if number != without_message(number):
            return Filter((Term("fp", (Value(fingerprint),)),))
        beginning = Term("fp", (Value(fingerprint[: -MESSAGE_BITS // 4], "*"),))
        others = self._column(database, "others", fingerprint=number, last=number + (1 << MESSAGE_BITS) - 1)
        excluded = Term("fp", tuple(Value(to_hex(other)) for other in others), negated=True)
        return Filter((beginning, excluded) if others else (beginning,))

    def count_failed(self, database: Database, fingerprint: str, limit: int = MAX_COUNTED) -> int:
        """Return the number of the group's jobs that are failed now; counting stops at `limit`."""
        return sum(map(len, self.failed_pages(database, fingerprint, limit)))


def bar_width(seconds: float, bins: int) -> float:
    """Return the length of the parts in which `recent` divides a time (seconds); the last one may be shorter."""
    return PART * max(1, ceil(seconds / PART / bins))


def _position(cursor: str) -> tuple[float, int]:
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise ValueError(f"{cursor[:60]!r} is not the cursor of a group of errors")
    return int(match[1]) / 1e6, from_hex(match[2])


def _group(
    *, fingerprint: int, state: str, first_seen: float, last_seen: float, changed_at: float | None,
    reopened_at: float | None, queues: list[str], samples: list[int], recent: list[int], **columns: Any,
) -> ErrorGroup:  # fmt: skip
    first, last = to_datetime(first_seen), to_datetime(last_seen)
    assert first is not None  # noqa: S101 - the column is NOT NULL
    assert last is not None  # noqa: S101
    return ErrorGroup(
        fingerprint=to_hex(fingerprint), state=GroupState(state), first_seen=first, last_seen=last,
        changed_at=to_datetime(changed_at), reopened_at=to_datetime(reopened_at), queues=tuple(map(str, queues)),
        samples=tuple(samples), recent=tuple(recent), **columns,
    )  # fmt: skip


def _not_found(fingerprint: str) -> ErrorGroupNotFound:
    return ErrorGroupNotFound(
        f"{not_found('group of errors', fingerprint, listing='errors list')}; a failed attempt is counted after up to "
        "ten seconds, and a group that does not occur for 90 days is deleted"
    )
