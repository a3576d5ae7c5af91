"""Writes about single jobs that the database refuses: repeated for a while, then the job is given up."""

from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar

import psycopg

from qworker.claims import Claims, WriteSuppressed
from qworkerd import log
from qworkerd.outcomes.last_resort import ABANDONED, LAST_RESORT, end_refused, give_up
from qworkerd.process.reconnect import is_transient

Database = psycopg.Connection[tuple[Any, ...]]
T = TypeVar("T")


class Refusals:
    """Runs such writes, so that none holds up another, and remembers which jobs the database refuses since when.

    The last resort is the acknowledger's: the job is failed with the little that is known. Where even that is refused
    it is abandoned: its row stays as it is, and no slot waits for it.
    """

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._since: dict[tuple[int, int], float] = {}
        self._abandoned: set[tuple[int, int]] = set()
        self._last: psycopg.Error | None = None
        self._log = log.get()

    def attempt(self, database: Database, token: int, job: int, write: Callable[[], T], otherwise: T) -> T:
        """Run a write about one job of a claim; return `otherwise` if the database refuses it.

        A row that is still the claim's afterwards, and that no other session has locked, counts as refused: a session
        that had locked it only during the write does not do so in each attempt for a minute. Raises when the connection
        is lost.
        """
        try:
            result = write()
            if self._claims.lock(database, token, [job]):
                raise WriteSuppressed
        except psycopg.Error as error:
            self.note(database, error)
            if not is_transient(error):
                self._refuse(database, token, job, error)
            return otherwise
        self._since.pop((token, job), None)
        return result

    def note(self, database: Database, error: psycopg.Error) -> None:
        """Remember that something has to be tried again; raises when the connection is lost."""
        if database.closed:
            raise error
        self._last = error

    def abandoned(self, token: int) -> set[int]:
        """Return the jobs of a claim that are never tried again."""
        return {job for of, job in self._abandoned if of == token}

    def forget(self, token: int) -> None:
        """Forget a claim that is over."""
        self._since = {(of, job): since for (of, job), since in self._since.items() if of != token}

    def raise_last(self) -> None:
        """Raise the last error after which something has to be tried again, if there was one since the last call."""
        last, self._last = self._last, None
        if last is not None:
            raise last

    def _refuse(self, database: Database, token: int, job: int, error: psycopg.Error) -> None:
        now = monotonic()
        if now - self._since.setdefault((token, job), now) < LAST_RESORT:
            return
        text = str(error).strip()
        try:
            if not give_up(self._claims, database, token, job, end_refused("recovery", error)):
                raise_if_claimed(self._claims, database, token, job)
        except psycopg.Error as again:
            self.note(database, again)
            if is_transient(again):
                return
            self._log.critical("job.abandoned", jobs=[job], error=text, hint=ABANDONED)
            self._abandoned.add((token, job))
        else:
            self._log.error("job.end_refused", jobs=[job], error=text, hint="the job is failed instead")
        self._last = None
        del self._since[token, job]


def raise_if_claimed(claims: Claims, database: Database, token: int, job: int) -> None:
    """Raise WriteSuppressed if a job is still the claim's after the last write about it."""
    if claims.still_claimed(database, token, [job]):
        raise WriteSuppressed
