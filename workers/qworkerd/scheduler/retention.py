"""Delete old history, discarded failed jobs and expired keys, and end jobs that have expired."""

from collections.abc import Callable
from time import monotonic
from typing import Any

import psycopg

from qworker.maintenance import Maintenance
from qworkerd import log
from qworkerd.config.settings import Settings
from qworkerd.scheduler.maintenance import MORE, MaintenanceTasks
from qworkerd.scheduler.sparing import Sparing

Database = psycopg.Connection[tuple[Any, ...]]

#: Interval of the tasks (seconds).
RETAIN_EVERY = 600.0
#: Time after which a task stops until its next turn (seconds): it must not delay the renewal of the lease.
TIME_LIMIT = 0.5
#: Below every id of a job.
LOWEST = -(2**63)

_DAY = 86_400.0


class Retention:
    """The retention tasks; each can run on every node at the same time."""

    def __init__(self, settings: Settings, maintenance: Maintenance) -> None:
        self._settings = settings
        self._maintenance = maintenance
        self._discarding, self._expiring = Sparing("discard"), Sparing("expire")
        #: The keys of jobs above this id are checked next.
        self._keys_from = LOWEST
        self._log = log.get()

    def add_to(self, maintenance: MaintenanceTasks) -> None:
        """Add the tasks that run at a fixed interval."""
        maintenance.add("discard", RETAIN_EVERY, self.discard)
        maintenance.add("keys", RETAIN_EVERY, self.delete_expired_keys)
        maintenance.add("unheld keys", RETAIN_EVERY, self.delete_unheld_keys)
        maintenance.add("truncate", RETAIN_EVERY, self.truncate)

    def truncate(self, database: Database) -> None:
        """Truncate the days of the history that are out of retention. A day in use is skipped until the next time."""
        for day in self._maintenance.expired_days(database, self._settings.history_days):
            try:
                if self._maintenance.truncate_history_day(database, day):
                    self._log.info("history.truncated", day=day)
            except psycopg.errors.LockNotAvailable:
                self._log.info("history.truncate_skipped", day=day)

    def discard(self, database: Database) -> object:
        """Move old failed jobs to the history."""
        keep = self._settings.failed_days * _DAY

        def discard() -> int:
            return len(
                self._discarding.run(
                    database,
                    lambda limit, excluded: self._maintenance.discard_failed(
                        database, keep, limit=limit, excluded=excluded
                    ),
                    lambda excluded: self._maintenance.first_discarded(database, keep, excluded),
                )
            )

        total, more = _repeat(discard)
        if total:
            self._log.info("jobs.discarded", jobs=total)
        return more

    def delete_expired_keys(self, database: Database) -> object:
        """Delete unique keys whose period has ended."""
        _, more = _repeat(lambda: self._maintenance.delete_expired_keys(database))
        return more

    def delete_unheld_keys(self, database: Database) -> object:
        """Delete unique keys whose job has ended, where the end of the job had to skip the key."""
        until = monotonic() + TIME_LIMIT
        while (after := self._maintenance.delete_unheld_keys(database, self._keys_from)) is not None:
            self._keys_from = after
            if monotonic() >= until:
                return MORE
        self._keys_from = LOWEST
        return None

    def expire(self, database: Database) -> None:
        """End jobs that were not started in time. Claims scan over them as long as they are in the queue."""

        def expire() -> int:
            return len(
                self._expiring.run(
                    database,
                    lambda limit, excluded: self._maintenance.expire(database, limit=limit, excluded=excluded),
                    lambda excluded: self._maintenance.first_expired(database, excluded),
                )
            )

        total, _ = _repeat(expire)
        if total:
            self._log.info("jobs.expired", jobs=total)


def _repeat(step: Callable[[], int]) -> tuple[int, object]:
    """Repeat a statement until it finds nothing or time is up; return the number of rows, and MORE or None."""
    until, total = monotonic() + TIME_LIMIT, 0
    while found := step():
        total += found
        if monotonic() > until:
            return total, MORE
    return total, None
