"""What the clerk has to write: one errand for each statement, repeated until the database has answered."""

import copy
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Self

import psycopg
from psycopg import Connection

from qworker.claims import Claims
from qworkerd.outcomes.outcome import Committed, Completed, Failed, Outcome, Released, Retried, Snoozed, Terminated
from qworkerd.process.reconnect import may_pass_later
from qworkerd.shared.claim import Claim

Database = Connection[tuple[Any, ...]]
Done = tuple[Claim, int, Outcome | None]

_FIRST, _LONGEST = 0.1, 1.0
#: An end that the database refuses for what it says, and for longer (seconds), is given up: the job fails.
LAST_RESORT = 60.0
#: What to do about a job that cannot even be failed.
ABANDONED = "the database refuses every change of this row: mend or delete it by hand"


class Write:
    """One fenced statement about some jobs of one claim. Repeating it is safe: what it has done it cannot do again."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.token = claim.token
        self.ids: list[int] = []
        #: When to try (monotonic).
        self.due = 0.0
        #: Whether an earlier try may have been executed without our hearing of it.
        self.uncertain = False
        #: Since when the database refuses it for what it says (monotonic); None: it has not.
        self.refused: float | None = None
        self._delay = _FIRST

    def write(self, claims: Claims, database: Database) -> list[int]:
        """Execute the statement; return the ids it changed."""
        raise NotImplementedError

    def drop_details(self) -> None:
        """Leave out what the database may have choked on."""

    def split(self) -> Self:
        """Give half of the jobs to another errand, which is returned."""
        other, half = copy.copy(self), len(self.ids) // 2
        self.ids, other.ids = self.ids[:half], self.ids[half:]
        return other

    def postpone(self, now: float) -> None:
        """Try again later, and later still the next time."""
        self.due = now + self._delay
        self._delay = min(self._delay * 2, _LONGEST)


class GiveUp(Write):
    """A job whose end the database refuses for good: it fails, and neither holds its claim for ever nor runs again."""

    def __init__(self, errand: Write, error: Exception) -> None:
        super().__init__(errand.claim)
        self.ids = errand.ids
        self._error = end_refused(type(errand).__name__.lower(), error)

    def write(self, claims: Claims, database: Database) -> list[int]:
        """Fail the job, or discard it."""
        return [done for job in self.ids for done in give_up(claims, database, self.token, job, self._error)]


def give_up(claims: Claims, database: Database, token: int, job: int, error: str) -> list[int]:
    """Fail a job whose end the database refuses; where even that is refused, move it to the history, discarded.

    Otherwise the job would stay claimed by nobody, be released, and run again, for ever. Returns the ids changed.
    """
    try:
        return claims.give_up(database, token, job, error)
    except psycopg.Error as refused:
        if database.closed or may_pass_later(refused):
            raise
    return claims.end(database, token, job, state="discarded", error=error, duration=0.0)


def end_refused(write: str, error: Exception) -> str:
    """Return what is kept of the error of a job that is given up, as JSON."""
    return json.dumps({
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"), "type": "EndRefused", "cause": "refused",
        "message": f"the database refuses the end of this job ({write}): {str(error)[:1000]}", "traceback": "",
    })  # fmt: skip


class CompleteWrite(Write):
    """Jobs that have succeeded."""

    def __init__(self, claim: Claim) -> None:
        super().__init__(claim)
        self._durations: dict[int, float] = {}
        self._results: dict[int, str] = {}

    def add(self, job: int, outcome: Completed | None) -> None:
        """Add a job; None: it took less than a millisecond and returned None."""
        self.ids.append(job)
        if outcome is not None:
            self._durations[job] = outcome.duration
            if outcome.result is not None:
                self._results[job] = outcome.result

    def write(self, claims: Claims, database: Database) -> list[int]:
        """Move the jobs to the history."""
        durations = json.dumps(self._durations) if self._durations else "{}"
        results = self._results
        texts = ",".join(f'"{job}":{results[job]}' for job in self.ids if job in results) if results else ""
        return claims.acknowledge(database, self.token, self.ids, durations=durations, results=f"{{{texts}}}")

    def drop_details(self) -> None:
        """Give up the results."""
        self._results = {}  # another one, should halves share it


class CommittedWrite(Write):
    """Jobs whose end was committed with their work: nothing is left to be written."""

    def write(self, claims: Claims, database: Database) -> list[int]:  # noqa: ARG002
        """Return them."""
        return list(self.ids)


class ReleaseWrite(Write):
    """Jobs that are handed back as if they had never been claimed."""

    def __init__(self, claim: Claim) -> None:
        super().__init__(claim)
        #: The lowest of their places in the queue.
        self.seq = 0

    def add(self, job: int, outcome: Released) -> None:
        """Add a job."""
        self.seq = min(self.seq, outcome.seq) if self.ids else outcome.seq
        self.ids.append(job)

    def write(self, claims: Claims, database: Database) -> list[int]:
        """Make them available in their old place."""
        return claims.release(database, self.token, self.ids)


class OutcomeWrite(Write):
    """One job that did not simply succeed."""

    def __init__(self, claim: Claim, job: int, outcome: Retried | Failed | Snoozed | Terminated) -> None:
        super().__init__(claim)
        self.ids.append(job)
        self._outcome = outcome
        self._plain = False
        self._lost = outcome.lost if isinstance(outcome, Retried | Failed) else None
        self.uncertain = self._lost is not None

    def write(self, claims: Claims, database: Database) -> list[int]:
        """Retry, fail, put off or end the job; a session that may still commit its work is ended first.

        Until it is over the job is locked, and the errand repeated; if it has committed, the job is no longer the
        claim's.
        """
        (job,) = self.ids
        if self._lost is not None:
            claims.end_session(database, self._lost.pid, self._lost.role)
        match self._outcome:
            case Snoozed(delay, bounced):
                return claims.snooze(database, self.token, job, delay=delay, unknown_task=bounced)
            case Retried(delay, error):
                return claims.retry(database, self.token, job, delay=delay, error=self._text(error))
            case Failed(error, hook):
                return claims.fail(database, self.token, job, error=self._text(error), hook=hook)
            case Terminated(state, duration, error):
                return claims.end(database, self.token, job, state=state, error=self._text(error), duration=duration)

    def drop_details(self) -> None:
        """Keep of the error no more than its name."""
        self._plain = True

    def _text(self, error: dict[str, Any]) -> str:
        return json.dumps({**error, "message": "", "traceback": ""} if self._plain else error)


def group(done: Iterable[Done]) -> list[Write]:
    """Make errands of what was handed over, as few as possible: each is a statement and a commit."""
    successes: dict[Claim, CompleteWrite] = {}
    returned: dict[Claim, ReleaseWrite] = {}
    notes: dict[Claim, CommittedWrite] = {}
    decisions: list[Write] = []
    for claim, job, outcome in done:
        if outcome is None or isinstance(outcome, Completed):
            errand = successes.get(claim)
            if errand is None:
                errand = successes[claim] = CompleteWrite(claim)
            errand.add(job, outcome)
        elif isinstance(outcome, Released):
            returned.setdefault(claim, ReleaseWrite(claim)).add(job, outcome)
        elif isinstance(outcome, Committed):
            notes.setdefault(claim, CommittedWrite(claim)).ids.append(job)
        else:
            decisions.append(OutcomeWrite(claim, job, outcome))
    return [*successes.values(), *notes.values(), *returned.values(), *decisions]
