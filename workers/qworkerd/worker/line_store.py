"""Stores the log lines of attempts that did not fail, in bulk, before these attempts are acknowledged."""

from collections import deque
from time import monotonic

import psycopg

from qworker.job_logs import AttemptLines, JobLogs
from qworkerd import log
from qworkerd.process.reconnect import ReconnectingConnection, is_transient

#: Maximum size of the lines that wait for the database, and of those of one statement (characters).
MAX_WAITING, MAX_BATCH = 8_000_000, 1_000_000
#: Time after which a failed statement is repeated (seconds).
RETRY_INTERVAL = 1.0


class LineStore:
    """The lines that wait to be written, by the thread of the acknowledger. They never delay the end of a job for long.

    Lines are stored before the end of their job: a reader that sees that a job has ended sees all of its lines.
    """

    def __init__(self, schema: str, connection: ReconnectingConnection) -> None:
        self._logs = JobLogs(schema)
        self._connection = connection
        self._waiting: deque[AttemptLines] = deque()
        self._lost = 0
        #: When to try next (monotonic).
        self._due = 0.0
        self._log = log.get()

    def __bool__(self) -> bool:
        """Return whether lines wait."""
        return bool(self._waiting)

    def add(self, lines: AttemptLines) -> None:
        """Add the lines of an attempt; called by the main thread before it submits the outcome."""
        self._waiting.append(lines)

    def write(self) -> None:
        """Write what waits. Lines that the database rejects are dropped; while it is away they wait, up to a size."""
        while monotonic() >= self._due and (batch := self._next_batch()):
            database = self._connection.get()
            if database is None:
                self._put_back(batch)
                return
            try:
                self._logs.store(database, batch)
            except Exception as error:  # noqa: BLE001 - lines must not end the thread that settles jobs
                if not self._connection.usable_after(error) or is_transient(error):
                    self._put_back(batch)
                    return
                if len(batch) > 1:  # one of them may be the cause
                    self._store_each(database, batch)
                else:
                    self._on_rejected(error)

    def _store_each(self, database: psycopg.Connection[tuple[object, ...]], batch: list[AttemptLines]) -> None:
        for number, lines in enumerate(batch):
            try:
                self._logs.store(database, [lines])
            except Exception as error:  # noqa: BLE001 - as above
                if not self._connection.usable_after(error):
                    self._put_back(batch[number:])
                    return
                self._on_rejected(error)

    def _on_rejected(self, error: Exception) -> None:
        self._lost += 1
        self._report(str(error).strip())

    def _next_batch(self) -> list[AttemptLines]:
        batch, size = list[AttemptLines](), 0
        while self._waiting and size < MAX_BATCH:
            batch.append(self._waiting.popleft())
            size += len(batch[-1].lines)
        return batch

    def _put_back(self, batch: list[AttemptLines]) -> None:
        self._due = monotonic() + RETRY_INTERVAL
        self._waiting.extendleft(reversed(batch))
        size = sum(len(lines.lines) for lines in self._waiting)
        while size > MAX_WAITING:
            size -= len(self._waiting.popleft().lines)
            self._lost += 1
        self._report("the database has been unavailable for too long")

    def _report(self, reason: str) -> None:
        """Log the attempts whose lines were lost."""
        if self._lost:
            self._log.warning("job_logs.lost", attempts=self._lost, error=reason)
            self._lost = 0
