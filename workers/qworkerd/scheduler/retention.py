"""Deletes old history, log lines, keys and audit entries, discards old failed jobs, and ends expired jobs."""

from collections.abc import Callable, Collection
from functools import partial
from time import monotonic

import psycopg

from qworker.audit import Audit
from qworker.db.statements import Database
from qworker.maintenance import EndedJob, Maintenance
from qworkerd import log
from qworkerd.config.settings import Settings
from qworkerd.scheduler.batched_write import BatchedWrite
from qworkerd.scheduler.maintenance import MORE, MaintenanceTasks
from qworkerd.shared.tally import Counter, TallyWriter

#: Interval of the tasks (seconds).
RETENTION_INTERVAL = 600.0
#: Time after which a task stops until its next turn (seconds): it must not delay the renewal of the lease.
TIME_LIMIT = 0.5
#: An id below that of every job.
MIN_ID = -(2**63)

_DAY = 86_400.0


class Retention:
    """The retention tasks; each can run on every node at the same time."""

    def __init__(self, settings: Settings, maintenance: Maintenance, tally: TallyWriter) -> None:
        self._tally = tally
        self._settings = settings
        self._maintenance = maintenance
        self._audit = Audit(settings.schema)
        self._discarding, self._expiring = BatchedWrite("discard"), BatchedWrite("expire")
        #: The keys of jobs above this id are checked next.
        self._keys_from = MIN_ID
        self._log = log.get()

    def add_to(self, maintenance: MaintenanceTasks) -> None:
        """Add the tasks that run at a fixed interval."""
        maintenance.add("discard", RETENTION_INTERVAL, self.discard)
        maintenance.add("keys", RETENTION_INTERVAL, self.delete_expired_keys)
        maintenance.add("unheld keys", RETENTION_INTERVAL, self.delete_unheld_keys)
        maintenance.add("audit", RETENTION_INTERVAL, self.delete_old_audit)
        maintenance.add("truncate", RETENTION_INTERVAL, self.truncate)

    def truncate(self, database: Database) -> None:
        """Truncate what is older than its retention: days of the history, and of log lines.

        A day in use is skipped this time.
        """
        expired = self._maintenance.expired_days(
            database, history_days=self._settings.history_days, log_days=self._settings.log_days
        )
        for ring, day in expired:
            logs = ring == "job_log"
            try:
                if self._maintenance.truncate_day(database, ring, day):
                    self._log.info("job_logs.truncated" if logs else "history.truncated", day=day)
            except psycopg.errors.LockNotAvailable:
                self._log.info("job_logs.truncate_skipped" if logs else "history.truncate_skipped", day=day)

    def discard(self, database: Database) -> object:
        """Move old failed jobs to the history."""
        keep = self._settings.failed_days * _DAY

        write = partial(self._maintenance.discard_failed, database, keep)
        first = partial(self._maintenance.first_discarded, database, keep)
        total, more = _repeat(lambda: self._count(self._discarding.run(database, write, first), Counter.DISCARDED))
        if total:
            self._log.info("jobs.discarded", jobs=total)
        return more

    def delete_expired_keys(self, database: Database) -> object:
        """Delete unique keys whose period has ended."""
        _, more = _repeat(lambda: self._maintenance.delete_expired_keys(database))
        return more

    def delete_unheld_keys(self, database: Database) -> object:
        """Delete unique keys whose job has ended; the end of a job skips a key that another session has locked."""
        until = monotonic() + TIME_LIMIT
        while (after := self._maintenance.delete_unheld_keys(database, self._keys_from)) is not None:
            self._keys_from = after
            if monotonic() >= until:
                return MORE
        self._keys_from = MIN_ID
        return None

    def delete_old_audit(self, database: Database) -> object:
        """Delete entries of the audit that are more than 400 days old."""
        _, more = _repeat(lambda: self._audit.delete_old(database))
        return more

    def expire(self, database: Database) -> None:
        """End jobs that were not started before their expiry time; claims scan over them until then."""
        write, first = partial(self._maintenance.expire, database), partial(self._maintenance.first_expired, database)
        total, _ = _repeat(lambda: self._count(self._expiring.run(database, write, first), Counter.CANCELLED))
        if total:
            self._log.info("jobs.expired", jobs=total)

    def _count(self, ended: Collection[EndedJob], counter: Counter) -> int:
        """Count jobs that a statement has ended; return their number."""
        for job in ended:
            series = self._tally.numbers[job.queue, job.task]
            self._tally.count(series, counter)
            if job.expired:
                self._tally.count(series, Counter.EXPIRED)
        return len(ended)


def _repeat(step: Callable[[], int]) -> tuple[int, object]:
    """Repeat a statement until it finds no row or time is up; return the number of rows, and MORE if time was up."""
    until, total = monotonic() + TIME_LIMIT, 0
    while found := step():
        total += found
        if monotonic() > until:
            return total, MORE
    return total, None
