"""Handles writes for single jobs that the database rejects: each is repeated for a while, then the job is given up."""

from collections.abc import Callable
from time import monotonic
from typing import TypeVar

import psycopg

from qworker.claims import Claims, WriteSuppressed
from qworker.db.statements import Database
from qworkerd import log
from qworkerd.outcomes.last_resort import ABANDONED, LAST_RESORT, end_refused, give_up
from qworkerd.process.reconnect import is_transient

T = TypeVar("T")


class Rejections:
    """Runs such writes, so that none delays another, and records since when the database rejects which job.

    The last resort is the same as the acknowledger's: the job fails, with this error alone. If even that is rejected,
    the job is abandoned: its row remains unchanged, and no slot waits for it.
    """

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._since: dict[tuple[int, int], float] = {}
        self._abandoned: set[tuple[int, int]] = set()
        self._last: psycopg.Error | None = None
        self._log = log.get()

    def attempt(self, database: Database, token: int, job: int, write: Callable[[], T], otherwise: T) -> T:
        """Run a write for one job of a claim; return `otherwise` if the database rejects it.

        If the row still belongs to the claim afterwards, and no other session has locked it, the write counts as
        rejected: a session that has locked it only during the write does not do so in each attempt for a minute. Raises
        psycopg.Error if the connection is lost.
        """
        try:
            result = write()
            if self._claims.lock(database, token, [job]):
                raise WriteSuppressed
        except psycopg.Error as error:
            self.record(database, error)
            if not is_transient(error):
                self._on_rejected(database, token, job, error)
            return otherwise
        self._since.pop((token, job), None)
        return result

    def record(self, database: Database, error: psycopg.Error) -> None:
        """Record an error after which a write has to be repeated; raises it if the connection is lost."""
        if database.closed:
            raise error
        self._last = error

    def abandoned(self, token: int) -> set[int]:
        """Return the jobs of a claim that were abandoned."""
        return {job for of, job in self._abandoned if of == token}

    def discard(self, token: int) -> None:
        """Discard what is recorded of a claim that has ended."""
        self._since = {(of, job): since for (of, job), since in self._since.items() if of != token}

    def raise_last(self) -> None:
        """Raise the last error after which a write has to be repeated, if there was one since the last call."""
        last, self._last = self._last, None
        if last is not None:
            raise last

    def _on_rejected(self, database: Database, token: int, job: int, error: psycopg.Error) -> None:
        now = monotonic()
        if now - self._since.setdefault((token, job), now) < LAST_RESORT:
            return
        text = str(error).strip()
        try:
            if not give_up(self._claims, database, token, job, end_refused("recovery", error)):
                raise_if_claimed(self._claims, database, token, job)
        except psycopg.Error as again:
            self.record(database, again)
            if is_transient(again):
                return
            self._log.critical("job.abandoned", jobs=[job], error=text, hint=ABANDONED)
            self._abandoned.add((token, job))
        else:
            self._log.error("job.end_refused", jobs=[job], error=text, hint="the job is failed instead")
        self._last = None
        del self._since[token, job]


def raise_if_claimed(claims: Claims, database: Database, token: int, job: int) -> None:
    """Raise WriteSuppressed if a job still belongs to the claim after the last write for it."""
    if claims.still_claimed(database, token, [job]):
        raise WriteSuppressed
