"""Counts what the database has confirmed: the ends of attempts and of jobs, their waits and run times."""

from collections.abc import Collection, Mapping

from qworker.job import JobState
from qworkerd.outcomes.last_resort import GiveUp
from qworkerd.outcomes.outcome import Crashed, Failed, Lost, Retried, Snoozed, Terminated
from qworkerd.outcomes.writes import (
    CommittedWrite,
    CompleteWrite,
    CrashWrite,
    LossWrite,
    OutcomeWrite,
    ReleaseWrite,
    Write,
)
from qworkerd.shared.cause import Cause
from qworkerd.shared.tally import Counter, TallyWriter

#: A job's series, and how long it waited (seconds); None if that is unknown.
Facts = tuple[int, float | None]

#: The counter of an attempt that ended with its worker.
_DEATHS = {
    Cause.TIMEOUT: Counter.TIMED_OUT,
    Cause.OOM: Counter.OOM,
    Cause.SIGNAL: Counter.SIGNALLED,
    Cause.EXIT: Counter.EXITED,
    Cause.STALLED: Counter.STALLED,
    Cause.LEASE: Counter.LEASE_LOST,
    Cause.SUPERVISOR_LOST: Counter.SUPERVISOR_LOST,
    Cause.NODE_LOST: Counter.NODE_LOST,
}
#: The counter of a job that has reached a state; a completed one is counted as an attempt.
ENDS = {
    JobState.FAILED: Counter.FAILED,
    JobState.CANCELLED: Counter.CANCELLED,
    JobState.DISCARDED: Counter.DISCARDED,
}


def count_acknowledged(tally: TallyWriter, write: Write, changed: Collection[int]) -> None:
    """Count what a worker's write has changed. Call this before its claim is closed."""
    series, waits = write.claim.series, write.claim.waits
    if not (changed and series):
        return
    ids = write.claim.ids[: len(series)].tolist()
    if isinstance(write, CompleteWrite) and len(changed) == len(write.ids):
        # The usual case: the jobs are adjacent, as they ran in the order of the claim.
        start = ids.index(write.ids[0])
        part = slice(start, start + len(write.ids))
        if ids[part] == write.ids:
            write.claim.mark_counted_from(start, len(write.ids))
            _count_adjacent(tally, write, series[part], waits[part])
            return
    write.claim.mark_counted(changed)
    count_written(tally, write, changed, dict(zip(ids, zip(series, waits, strict=True), strict=True)))


def _count_adjacent(tally: TallyWriter, write: CompleteWrite, series: list[int], waits: list[float]) -> None:
    """Count jobs that completed: their series and waits are in the order of the write."""
    durations = write.durations
    first = series[0]
    if series.count(first) == len(series):
        tally.succeed(first, waits, [durations[job] for job in write.ids if job in durations] if durations else ())
        return
    groups: dict[int, tuple[list[float], list[float]]] = {number: ([], []) for number in set(series)}
    for number, wait in zip(series, waits, strict=True):
        groups[number][0].append(wait)
    for number, job in zip(series, write.ids if durations else (), strict=False):
        if job in durations:
            groups[number][1].append(durations[job])
    for number, (waited, ran) in groups.items():
        tally.succeed(number, waited, ran)


def count_written(tally: TallyWriter, write: Write, changed: Collection[int], known: Mapping[int, Facts]) -> None:
    """Count the jobs that a write has changed; `known` has what is counted of each."""
    jobs = {job: known[job] for job in changed if job in known}
    match write:
        case CompleteWrite() | CommittedWrite():
            _count_succeeded(tally, jobs, write.durations)
        case ReleaseWrite():
            for job, (series, _) in jobs.items():
                tally.count(series, Counter.INTERRUPTED if job in write.interrupted else Counter.RELEASED)
        case OutcomeWrite() | CrashWrite() | LossWrite():
            for job, facts in jobs.items():
                _count_outcome(tally, write.outcome, facts, write.states.get(job))
        case GiveUp():
            for series, wait in jobs.values():
                tally.attempt(series, Counter.RAISED, wait, None)
                tally.count(series, Counter.FAILED)


def _count_succeeded(tally: TallyWriter, jobs: Mapping[int, Facts], durations: Mapping[int, float]) -> None:
    groups: dict[int, tuple[list[float], list[float]]] = {}
    for job, (series, wait) in jobs.items():
        waits, runs = groups.setdefault(series, ([], []))
        waits.append(wait or 0.0)
        if job in durations:
            runs.append(durations[job])
    for series, (waits, runs) in groups.items():
        tally.succeed(series, waits, runs)


def _count_outcome(
    tally: TallyWriter, outcome: Retried | Failed | Snoozed | Terminated | Crashed | Lost, facts: Facts,
    state: JobState | None,
) -> None:  # fmt: skip
    """Count an attempt that did not succeed; state: the job's state now, if the write knows it."""
    series, wait = facts
    if isinstance(outcome, Snoozed):
        tally.count(series, Counter.UNKNOWN_TASK if outcome.unknown_task else Counter.SNOOZED)
        return
    tally.attempt(series, _counter_of(outcome), wait, outcome.duration)
    if state in ENDS:
        tally.count(series, ENDS[state])


def _counter_of(outcome: Retried | Failed | Terminated | Crashed | Lost) -> Counter:
    """Return the counter of an attempt that did not succeed."""
    cause = str(outcome.error.get("cause")).partition(":")[0]
    if cause in _DEATHS:
        return _DEATHS[Cause(cause)]
    if isinstance(outcome, Terminated) and outcome.state is JobState.CANCELLED:
        return Counter.CANCELLED_ATTEMPTS
    return Counter.RETRIED if isinstance(outcome, Retried) else Counter.RAISED
