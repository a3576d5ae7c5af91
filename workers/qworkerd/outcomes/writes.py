"""The writes of the acknowledger: each is one statement, which is repeated until the database has confirmed it."""

import copy
import json
from collections.abc import Iterable
from typing import Any, Self

from qworker.backoff import Backoff
from qworker.claims import Claims, WriteSuppressed
from qworker.db.statements import Database
from qworker.job import JobState
from qworker.recovery import LostJob, Recovery
from qworkerd.outcomes.outcome import (
    Committed,
    Completed,
    Crashed,
    Failed,
    Lost,
    Outcome,
    Released,
    Retried,
    Snoozed,
    Terminated,
)
from qworkerd.shared.claim import Claim

Done = tuple[Claim, int, Outcome | None]

#: The delay between two attempts to execute a write.
_REPEAT = Backoff(0.1, 1.0)


class Write:
    """A fenced statement about jobs of one claim. It can be repeated without a second effect."""

    #: The name of the write in the log.
    kind = ""
    #: Whether it may end jobs.
    ends = True

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.token = claim.token
        self.ids: list[int] = []
        #: When to try next (monotonic).
        self.due = 0.0
        #: Whether an earlier attempt may have been executed although its answer was lost.
        self.uncertain = False
        #: Since when the database rejects its values (monotonic); None if it does not.
        self.rejected_since: float | None = None
        self._postponed = 0

    def write(self, claims: Claims, database: Database) -> list[int]:
        """Execute the statement; return the ids of the jobs that it changed."""
        raise NotImplementedError

    def drop_details(self) -> None:
        """Remove the values that the database may have rejected."""

    def split(self) -> Self:
        """Move half of the jobs to another write and return it."""
        other, half = copy.copy(self), len(self.ids) // 2
        self.ids, other.ids = self.ids[:half], self.ids[half:]
        return other

    def postpone(self, now: float) -> None:
        """Try again later, with a growing delay."""
        self._postponed += 1
        self.due = now + _REPEAT.delay(self._postponed)


def raise_if_suppressed(claims: Claims, write: Write, database: Database) -> None:
    """Raise WriteSuppressed if the write does not change one of its jobs although no other session has locked it."""
    if not claims.lock(database, write.token, write.ids):  # the usual case, which then needs no rollback
        return
    with database.transaction(force_rollback=True):
        locked = claims.lock(database, write.token, write.ids)
        changed = write.write(claims, database) if locked else []
    if locked.difference(changed):
        raise WriteSuppressed


class CompleteWrite(Write):
    """Jobs that have completed."""

    kind = "complete"

    def __init__(self, claim: Claim) -> None:
        super().__init__(claim)
        #: The run times of jobs that ran for a millisecond or longer, or returned a result (seconds).
        self.durations: dict[int, float] = {}
        self._results: dict[int, str] = {}

    def add(self, job: int, outcome: Completed | None) -> None:
        """Add a job; None if it took less than a millisecond and returned None."""
        self.ids.append(job)
        if outcome is not None:
            self.durations[job] = outcome.duration
            if outcome.result is not None:
                self._results[job] = outcome.result

    def write(self, claims: Claims, database: Database) -> list[int]:
        """Move the jobs to the history."""
        durations = json.dumps(self.durations) if self.durations else None
        found = self._results
        texts = ",".join(f'"{job}":{found[job]}' for job in self.ids if job in found)
        results = f"{{{texts}}}" if texts else None
        return claims.acknowledge(database, self.token, self.ids, durations=durations, results=results)

    def drop_details(self) -> None:
        """Drop the results."""
        self._results = {}  # a new dict: the other half of a split may share it


class CommittedWrite(Write):
    """Jobs whose end was committed with their work, so that nothing is left to write."""

    kind = "committed"

    def __init__(self, claim: Claim) -> None:
        super().__init__(claim)
        #: The run times of the jobs (seconds).
        self.durations: dict[int, float] = {}

    def add(self, job: int, outcome: Committed) -> None:
        """Add a job."""
        self.ids.append(job)
        self.durations[job] = outcome.duration

    def write(self, claims: Claims, database: Database) -> list[int]:  # noqa: ARG002
        """Return the ids of the jobs."""
        return list(self.ids)


class ReleaseWrite(Write):
    """Jobs that are released as if they had not been claimed."""

    kind = "release"
    ends = False

    def __init__(self, claim: Claim) -> None:
        super().__init__(claim)
        #: The lowest seq of the jobs.
        self.seq = 0
        #: The jobs whose handlers were interrupted; the others were not started.
        self.interrupted: set[int] = set()

    def add(self, job: int, outcome: Released) -> None:
        """Add a job."""
        self.seq = min(self.seq, outcome.seq) if self.ids else outcome.seq
        self.ids.append(job)
        if not outcome.seq:
            self.interrupted.add(job)

    def write(self, claims: Claims, database: Database) -> list[int]:
        """Make the jobs available with their old seq."""
        return claims.release(database, self.token, self.ids)


class OutcomeWrite(Write):
    """A job whose outcome is not a plain success."""

    kind = "outcome"

    def __init__(self, claim: Claim, job: int, outcome: Retried | Failed | Snoozed | Terminated) -> None:
        super().__init__(claim)
        self.ids.append(job)
        self.outcome = outcome
        #: The states of the jobs that were written, as far as they follow from the write.
        self.states: dict[int, JobState] = {}
        self._details_dropped = False
        self._lost = outcome.lost if isinstance(outcome, Retried | Failed) else None
        self.uncertain = self._lost is not None

    def write(self, claims: Claims, database: Database) -> list[int]:
        """Retry, fail, snooze or end the job; a session that may still commit its work is terminated first.

        Until that session has ended the job is locked, and the write is repeated. If it has committed, the job no
        longer belongs to the claim.
        """
        (job,) = self.ids
        if self._lost is not None:
            claims.end_session(database, self._lost.pid, self._lost.role)
        match self.outcome:
            case Snoozed(delay, unknown_task):
                return claims.snooze(database, self.token, job, delay=delay, unknown_task=unknown_task)
            case Retried(delay, error):
                self.states = claims.retry(database, self.token, job, delay=delay, error=self._text(error))
            case Failed(error, hook, _, crashes):
                error_text = self._text(error)
                self.states = claims.fail(database, self.token, job, error=error_text, hook=hook, crashes=crashes)
            case Terminated(state, duration, error):
                error_text = self._text(error)
                ended = claims.end(database, self.token, job, state=state, error=error_text, duration=duration)
                self.states = dict.fromkeys(ended, state)
        return list(self.states)

    def drop_details(self) -> None:
        """Keep only the type of the error, without message and traceback."""
        self._details_dropped = True

    def _text(self, error: dict[str, Any]) -> str:
        if self._details_dropped:
            error = {key: value for key, value in error.items() if key not in ("logs", "group")}
            error |= {"message": "", "traceback": ""}
        return json.dumps(error)


class CrashWrite(Write):
    """A job that may have killed its worker, and runs again."""

    kind = "crash"
    ends = False

    def __init__(self, claim: Claim, job: int, outcome: Crashed, recovery: Recovery) -> None:
        super().__init__(claim)
        self.ids.append(job)
        self.outcome = outcome
        self.states: dict[int, JobState] = {}
        self._recovery = recovery

    def write(self, claims: Claims, database: Database) -> list[int]:  # noqa: ARG002
        """Count the crash, and make the job available or schedule it."""
        (job,) = self.ids
        delay, error = self.outcome.delay, json.dumps(self.outcome.error)
        return [job] if self._recovery.record_crash(database, self.token, job, delay=delay, error=error) else []


class LossWrite(Write):
    """A job that was lost with its worker; at `max_node_losses` losses the statement fails it."""

    kind = "loss"
    ends = False

    def __init__(
        self, claim: Claim, job: int, outcome: Lost, recovery: Recovery, max_node_losses: int, hooks: list[str]
    ) -> None:
        super().__init__(claim)
        self.ids.append(job)
        #: The job after it was written.
        self.lost: list[LostJob] = []
        self.outcome = outcome
        self._recovery = recovery
        self._max_losses = max_node_losses
        self._hooks = hooks

    def write(self, claims: Claims, database: Database) -> list[int]:  # noqa: ARG002
        """Count the loss, and make the job available or fail it."""
        (job,) = self.ids
        error = json.dumps(self.outcome.error)
        self.lost = self._recovery.record_node_loss(database, self.token, job, self._max_losses, error, self._hooks)
        return [lost.id for lost in self.lost]

    @property
    def states(self) -> dict[int, JobState]:
        """The states of the jobs that were written."""
        return {lost.id: JobState(lost.state) for lost in self.lost}


def group(done: Iterable[Done]) -> list[Write]:
    """Group outcomes into as few writes as possible: each is a statement and a commit."""
    successes: dict[Claim, CompleteWrite] = {}
    released: dict[Claim, ReleaseWrite] = {}
    committed: dict[Claim, CommittedWrite] = {}
    others: list[Write] = []
    for claim, job, outcome in done:
        if outcome is None or isinstance(outcome, Completed):
            write = successes.get(claim)
            if write is None:
                write = successes[claim] = CompleteWrite(claim)
            write.add(job, outcome)
        elif isinstance(outcome, Released):
            released.setdefault(claim, ReleaseWrite(claim)).add(job, outcome)
        elif isinstance(outcome, Committed):
            committed.setdefault(claim, CommittedWrite(claim)).add(job, outcome)
        else:
            others.append(OutcomeWrite(claim, job, outcome))
    return [*successes.values(), *committed.values(), *released.values(), *others]
