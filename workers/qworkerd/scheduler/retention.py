"""Forget what is old: the ring's days, failed jobs, periods of uniqueness; end jobs that have expired."""

from time import monotonic
from typing import Any

import psycopg

from qworker.nodes import Nodes
from qworkerd import log
from qworkerd.config.settings import Settings

Database = psycopg.Connection[tuple[Any, ...]]

#: How long a duty goes on when there is a lot to do (seconds); the lease must not wait for it.
EXPIRE_TIME_LIMIT = 0.5

_DAY = 86_400.0


class Retention:
    """Each duty is safe on every node at once."""

    def __init__(self, settings: Settings, nodes: Nodes) -> None:
        self._settings = settings
        self._nodes = nodes
        self._log = log.get()

    def truncate(self, database: Database) -> None:
        """Empty the days of the history that are over; a day that somebody reads is left for the next time."""
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
        """End jobs that were not started in time: claims have to walk over them as long as they are there."""
        until, total = monotonic() + EXPIRE_TIME_LIMIT, 0
        while ended := self._nodes.expire(database):
            total += ended
            if monotonic() > until:
                break
        if total:
            self._log.info("jobs.expired", jobs=total)
