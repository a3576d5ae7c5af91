"""Delete old history, discarded failed jobs and expired keys, and end jobs that have expired."""

from time import monotonic
from typing import Any

import psycopg

from qworker.nodes import Nodes
from qworkerd import log
from qworkerd.config.settings import Settings

Database = psycopg.Connection[tuple[Any, ...]]

#: Time after which expiry stops until the next round (seconds): it must not delay the renewal of the lease.
EXPIRE_TIME_LIMIT = 0.5

_DAY = 86_400.0


class Retention:
    """The retention tasks; each can run on every node at the same time."""

    def __init__(self, settings: Settings, nodes: Nodes) -> None:
        self._settings = settings
        self._nodes = nodes
        self._log = log.get()

    def truncate(self, database: Database) -> None:
        """Truncate the days of the history that are out of retention. A day in use is skipped until the next time."""
        for day in self._nodes.expired_days(database, self._settings.history_days):
            try:
                if self._nodes.truncate_history_day(database, day):
                    self._log.info("history.truncated", day=day)
            except psycopg.errors.LockNotAvailable:
                self._log.info("history.truncate_skipped", day=day)

    def discard(self, database: Database) -> None:
        """Move old failed jobs to the history."""
        if discarded := self._nodes.discard_failed(database, self._settings.failed_days * _DAY):
            self._log.info("jobs.discarded", jobs=discarded)

    def expire(self, database: Database) -> None:
        """End jobs that were not started in time. Claims scan over them as long as they are in the queue."""
        until, total = monotonic() + EXPIRE_TIME_LIMIT, 0
        while ended := self._nodes.expire(database):
            total += ended
            if monotonic() > until:
                break
        if total:
            self._log.info("jobs.expired", jobs=total)
