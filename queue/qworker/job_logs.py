"""The log lines of jobs: those stored with errors, those of other attempts, and those of running jobs."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from qworker.db.encoding import escape_unstorable
from qworker.db.statements import DEFAULT_SCHEMA, Database, Statements
from qworker.decoding import decode
from qworker.job import Job, to_datetime

#: The time of an attempt that names none.
_UNKNOWN = datetime.fromtimestamp(0, UTC)
_MICROSECOND = timedelta(microseconds=1)
#: Why the lines of a running attempt are not shown.
NOT_ASKED = "its lines are shown when it has ended, as far as they are stored: {}, so the node was not asked for them"
_CURSOR = re.compile(r"([0-9]{1,17})\.([0-9]{1,10})")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line that the handler, or a library in it, has logged."""

    #: The number of the attempt, from 1.
    attempt: int
    #: When it was logged, by the clock of the node; None if it cannot be read.
    at: datetime | None
    #: debug, info, warning, error or critical.
    level: str
    #: The event or message.
    event: str
    #: The other keys of the event: the logger, extra values, the traceback as `exception`.
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AttemptLog:
    """The log of one attempt."""

    attempt: int
    #: Its last 200 lines, or 32 kB, oldest first.
    lines: tuple[LogLine, ...]
    #: The number of earlier lines, which were not kept.
    dropped: int = 0
    #: When the attempt was claimed, by the clock of the database; None if it is not stored.
    claimed_at: datetime | None = None
    #: Whether the attempt was still running when its lines were read.
    running: bool = False

    @property
    def key(self) -> datetime:
        """What orders the attempts of a job: numbers recur after a snooze, and after a retry by hand."""
        return self.claimed_at or _UNKNOWN


class Cursor(NamedTuple):
    """How far the lines of a job have been read."""

    #: The attempt: when it was claimed.
    attempt: datetime = _UNKNOWN
    #: The number of its last line that was read, from 1.
    line: int = 0

    def __str__(self) -> str:
        return f"{(self.attempt - _UNKNOWN) // _MICROSECOND}.{self.line}"

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Return the cursor that a string stands for; raises ValueError for any other."""
        if not (found := _CURSOR.fullmatch(text)):
            raise ValueError(f"{text!r} is not a cursor: pass the cursor of an earlier answer, or None for all lines")
        return cls(_UNKNOWN + int(found[1]) * _MICROSECOND, int(found[2]))


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLines:
    """The lines of a job behind a cursor."""

    #: The job when its lines were read. If it had ended, these are its last lines; those of a job that ended in its own
    #: transaction may follow within a second.
    job: Job
    #: The attempts that have such lines, with these only, oldest first.
    attempts: tuple[AttemptLog, ...]
    #: The cursor behind these lines, for the next call.
    cursor: str
    #: Why the lines of the running attempt are not shown: the node cannot, or cannot be asked. None if they are,
    #: or if they were not asked for.
    problem: str | None = None


class AttemptLines(NamedTuple):
    """The lines of an attempt that has ended, as a node stores them."""

    job: int
    token: int
    attempt: int
    #: The number of earlier lines, which were not kept.
    dropped: int
    #: A JSON array.
    lines: str


class JobLogs(Statements):
    """The statements for the lines of jobs; each is one commit."""

    __slots__ = ()

    def __init__(self, schema: str = DEFAULT_SCHEMA) -> None:
        super().__init__("job_logs", schema)

    def stored(
        self, database: Database, job: int, attempt: int | None = None, since: datetime = _UNKNOWN
    ) -> list[AttemptLog]:
        """Return the logs of a job's attempts that did not fail, oldest first: the last 50 claimed since then."""
        return self._records(
            database, "stored", _attempt_log, job=job, attempt=attempt, since=(since - _MICROSECOND).timestamp()
        )

    def request(self, database: Database, job: int) -> str | None:
        """Ask the node that runs the job, now or later, for its lines; repeat this every few seconds.

        Returns None, or why the connection cannot do that.
        """
        if (problem := self._obstacle(database)) is not None:
            return problem
        if self._scalar(database, "request", job=job):
            self._rows(database, "wake")
        return None

    def withdraw(self, database: Database, job: int) -> None:
        """Withdraw the request, if the connection can have made one; another follower of the job renews it."""
        if self._obstacle(database) is None:
            self._count(database, "withdraw", job=job)

    def _obstacle(self, database: Database) -> str | None:
        """Return why the connection cannot ask for lines of running jobs."""
        ((permitted, role, read_only),) = self._rows(database, "may_request")
        if permitted and not read_only:
            return None
        return NOT_ASKED.format("the database is read-only" if permitted else f"role {role!r} may only read")

    def live(self, database: Database, job: int) -> tuple[list[AttemptLog], str | None]:
        """Return the log of the running attempt as its node has written it last, or why it does not."""
        for row in self._records(database, "live", dict[str, Any], job=job):
            problem = row.pop("problem")
            return ([_attempt_log(running=True, **row)] if row["lines"] is not None else []), problem
        return [], None

    # The side of the node

    def store(self, database: Database, ended: Sequence[AttemptLines]) -> int:
        """Store the lines of attempts that have ended; return the number of those that were stored."""
        jobs, tokens, attempts, dropped, lines = (list(column) for column in zip(*ended, strict=True))
        lines = [escape_unstorable(database, each) for each in lines]
        return self._count(database, "store", jobs=jobs, tokens=tokens, attempts=attempts, dropped=dropped, lines=lines)

    def write(
        self, database: Database, job: int, token: int, attempt: int, *, dropped: int = 0, count: int = 0,
        lines: str | None = None, problem: str | None = None,
    ) -> None:  # fmt: skip
        """Show the lines of a running attempt to its followers: a JSON array with `count` elements, or a problem."""
        text = None if lines is None else escape_unstorable(database, lines)
        self._count(
            database, "write", job=job, token=token, attempt=attempt, dropped=dropped, count=count, lines=text,
            problem=problem,
        )  # fmt: skip

    def delete_old(self, database: Database) -> int:
        """Delete requests that nobody has withdrawn; return their number."""
        return self._count(database, "delete_old")


def logs_of(job: Job, attempt: int | None = None) -> list[AttemptLog]:
    """Return the logs that are stored with a job's errors, or with one of them, oldest first; others are left out.

    If a job was retried manually, its attempts are numbered from 1 again, and two logs may have the same number. Never
    raises for a row that was edited by hand.
    """
    found = []
    for record in job.errors:
        number, lines = record.get("attempt"), record.get("logs")
        if not isinstance(number, int) or not isinstance(lines, list) or attempt not in (None, number):
            continue
        dropped = record.get("logs_dropped")
        found.append(
            AttemptLog(number, _lines(number, lines), dropped if isinstance(dropped, int) else 0, _claimed_at(record))
        )
    return found


def merge(*logs: Iterable[AttemptLog]) -> list[AttemptLog]:
    """Return the logs of a job's attempts from several sources in their order.

    Of two logs of one attempt the one with the later lines is kept: that of a running attempt may be behind.
    """
    found: dict[tuple[datetime, int], AttemptLog] = {}
    for number, log in enumerate(each for source in logs for each in source):
        key = (log.key, log.attempt if log.claimed_at is not None else -number)
        known = found.get(key)
        if known is None or _end(log) > _end(known) or (known.running and not log.running):
            found[key] = log
    return sorted(found.values(), key=lambda log: log.key)


def behind(logs: Iterable[AttemptLog], cursor: Cursor) -> tuple[list[AttemptLog], Cursor]:
    """Return the parts of logs behind a cursor, and the cursor behind them."""
    found, after = [], cursor
    for log in logs:
        if log.key < cursor.attempt:
            continue
        read = cursor.line if log.key == cursor.attempt else 0
        if _end(log) > read:
            skipped = max(read - log.dropped, 0)
            found.append(replace(log, lines=log.lines[skipped:], dropped=max(log.dropped - read, 0)))
        after = Cursor(log.key, max(_end(log), read))
    return found, after


def _end(log: AttemptLog) -> int:
    """Return the number of the last line of a log."""
    return log.dropped + len(log.lines)


def _attempt_log(*, attempt: int, claimed_at: float | None, dropped: int, lines: str, running: bool) -> AttemptLog:
    found = decode(lines)
    kept = _lines(attempt, found if isinstance(found, list) else [])
    return AttemptLog(attempt, kept, max(dropped, 0), to_datetime(claimed_at), running)


def _lines(attempt: int, found: Iterable[Any]) -> tuple[LogLine, ...]:
    return tuple(_line(attempt, line) for line in found if isinstance(line, dict))


def _claimed_at(record: Mapping[str, Any]) -> datetime | None:
    for name in ("claimed_at", "at"):
        try:
            found = datetime.fromisoformat(str(record.get(name)))
        except ValueError:
            continue
        return found if found.tzinfo is not None else None
    return None


def _line(attempt: int, line: Mapping[str, Any]) -> LogLine:
    try:
        at = datetime.fromisoformat(str(line.get("timestamp")))
    except ValueError:
        at = None
    rest = {key: value for key, value in line.items() if key not in ("timestamp", "level", "event")}
    return LogLine(attempt, at, str(line.get("level") or "info"), str(line.get("event", "")), rest)
