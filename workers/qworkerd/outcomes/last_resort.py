"""The last resort for a job whose end the database always rejects: it fails instead, or is discarded."""

import json

import psycopg

from qworker.claims import Claims
from qworker.db.statements import Database
from qworker.job import JobState
from qworkerd.outcomes.record import error_record
from qworkerd.outcomes.writes import Write
from qworkerd.process.reconnect import is_transient
from qworkerd.shared.cause import Cause

#: Time after which a write that the database rejects for its values is given up, and the job fails (seconds).
LAST_RESORT = 60.0
#: The hint for a job that cannot be failed either.
ABANDONED = "the database rejects every change of this row: repair or delete it manually"


class GiveUp(Write):
    """A job whose end the database always rejects: it fails, so that it neither keeps its claim nor runs again."""

    kind = "give_up"

    def __init__(self, rejected: Write, error: Exception) -> None:
        super().__init__(rejected.claim)
        self.ids = rejected.ids
        self._error = end_refused(rejected.kind, error)

    def write(self, claims: Claims, database: Database) -> list[int]:
        """Fail the job, or discard it."""
        return [done for job in self.ids for done in give_up(claims, database, self.token, job, self._error)]


def give_up(claims: Claims, database: Database, token: int, job: int, error: str) -> list[int]:
    """Fail a job whose end the database rejects; if that is rejected too, move it to the history as discarded.

    Otherwise the job would be released and run repeatedly. Returns the ids changed.
    """
    try:
        with database.transaction():
            changed = claims.give_up(database, token, job, error)
        if changed:
            return changed
    except psycopg.Error as refused:
        if database.closed or is_transient(refused):
            raise
    return claims.end(database, token, job, state=JobState.DISCARDED, error=error, duration=0.0)


def end_refused(write: str, error: Exception) -> str:
    """Return the error that is stored for a job that is given up, as JSON."""
    message = f"the database refuses the end of this job ({write}): {str(error)[:1000]}"
    return json.dumps(error_record("EndRefused", message, Cause.REFUSED))
