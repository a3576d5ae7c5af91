"""Counts ends of attempts that were written, but not confirmed to the process that has written them."""

from collections.abc import Collection, Mapping

import psycopg

from qworker.db.statements import Database
from qworker.job import JobState
from qworker.recovery import LeftJob, Recovery
from qworkerd.outcomes.counting import Facts, count_written
from qworkerd.outcomes.outcome import Completed, Crashed, Failed, Outcome, Retried, Snoozed, Terminated, load
from qworkerd.outcomes.record import DIED
from qworkerd.outcomes.writes import CompleteWrite, CrashWrite, OutcomeWrite, Write
from qworkerd.shared.claim import Claim, Status
from qworkerd.shared.series import FIRST, MAX_SERIES
from qworkerd.shared.slots import Slot
from qworkerd.shared.tally import TallyWriter

#: An attempt: its number, and its outcome; None if it completed.
Attempt = tuple[int, Outcome | Crashed | None]


def count_unconfirmed(
    tally: TallyWriter, recovery: Recovery, database: Database, claim: Claim, attempts: Mapping[int, Attempt],
    known: Mapping[int, Facts],
) -> set[int]:  # fmt: skip
    """Count those jobs that have left the claim by their outcomes; return their ids. known: what is counted of each."""
    jobs = {job: (number, _mark(outcome)) for job, (number, outcome) in attempts.items() if job in known}
    if not jobs:
        return set()
    found = {left.id: left for left in recovery.left(database, claim.token, jobs)}
    claim.mark_counted(found)
    for job, left in found.items():
        series, waited = known[job]
        facts = {job: (series, left.waited if waited is None else waited)}
        count_written(tally, _write(claim, recovery, left, attempts[job][1]), [job], facts)
    return set(found)


def count_left(
    tally: TallyWriter, recovery: Recovery, database: Database, slot: Slot, claim: Claim, held: Collection[int]
) -> None:  # fmt: skip
    """Count what the worker of a dead slot, or a scheduler before this one, has written when it was killed.

    held: the jobs that still belong to the claim. Damaged memory of the dead process does not prevent its recovery.
    """
    attempts: dict[int, Attempt] = {}
    known: dict[int, Facts] = {}
    for index, entry in enumerate(claim.entries()):
        unusable = entry.counted or entry.status is Status.UNSTARTED or not FIRST <= entry.series < MAX_SERIES
        if unusable or entry.id in held:
            continue
        outcome: Outcome | Crashed | None = None
        if entry.status is not Status.SUCCEEDED:
            outcome = load(claim.read_outcome(index))
        if outcome is None and entry.status is Status.RUNNING:
            outcome = Crashed(0.0, {"type": DIED, "cause": slot.cause})
        attempts[entry.id] = (entry.attempt, outcome)
        known[entry.id] = (entry.series, None)
    try:
        count_unconfirmed(tally, recovery, database, claim, attempts, known)
    except (psycopg.Error, ValueError):
        if database.closed:
            raise


def _mark(outcome: Outcome | Crashed | None) -> str | None:
    """Return what identifies the error that is stored with the job: empty if there is none, None if it was snoozed.

    This is when it occurred. Only the type is known of an error that another scheduler has stored.
    """
    if isinstance(outcome, Snoozed):
        return None
    error = outcome.error if isinstance(outcome, Retried | Failed | Crashed) else {}
    mark = str(error.get("at") or error.get("type") or "")
    return mark if mark.isprintable() else ""  # another one is stored with escapes


def _write(claim: Claim, recovery: Recovery, left: LeftJob, outcome: Outcome | Crashed | None) -> Write:
    """Return the write that has been executed."""
    if (left.ended and left.state is JobState.COMPLETED) or not isinstance(
        outcome, Retried | Failed | Snoozed | Terminated | Crashed
    ):
        write = CompleteWrite(claim)
        write.add(left.id, Completed(left.duration, None) if left.duration else None)
        return write
    made = (
        CrashWrite(claim, left.id, outcome, recovery) if isinstance(outcome, Crashed)
        else OutcomeWrite(claim, left.id, outcome)
    )  # fmt: skip
    # A job that has failed may have been retried by hand since.
    failed = isinstance(outcome, Failed) and left.state not in (JobState.CANCELLED, JobState.DISCARDED)
    made.states = {left.id: JobState.FAILED if failed else left.state}
    return made
