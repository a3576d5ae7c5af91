"""Compares the results of the demo with the guarantees."""

import math
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import click

from qworker.job import Job, JobState
from qworkerd.demo.events import Events
from qworkerd.demo.jobs import PULSE, Totals
from qworkerd.demo.story import WORKER_DIED, pauses, retries

#: The number of crashes after which the job fails: the default of max_crashes.
CRASHES = 3


class Check(NamedTuple):
    """A guarantee, and whether the run has met it."""

    name: str
    passed: bool
    #: A description of the result.
    text: str


@dataclass(frozen=True)
class Facts:
    """The results of a run."""

    processes: int
    postgresql: str
    #: Files that were enqueued.
    files: int
    #: Time from the first enqueued to the last finished job (seconds).
    seconds: float
    #: The totals of the application's table.
    totals: Totals
    flaky: Job
    sleepy: Job
    deadly: Job
    #: The jobs that were enqueued by ticks.
    pulses: Sequence[Job]
    #: Number of unfinished jobs, without ticks, one of which may have been enqueued during the shutdown.
    unfinished: int
    failed: int
    #: Workers that ran before the shutdown.
    workers: int
    #: The exit code of the node after the shutdown.
    exit_code: int


class Report:
    """The checks of a run, from its facts and its log."""

    def __init__(self, facts: Facts, events: Events) -> None:
        self.facts = facts
        self._events = events
        #: One check for each guarantee.
        self.checks = (self._files(), self._flaky(), self._sleepy(), self._deadly(), self._pulse(), self._end())

    @property
    def passed(self) -> bool:
        """Whether all checks passed."""
        return all(check.passed for check in self.checks)

    @property
    def rate(self) -> float:
        """Files a second."""
        return self.facts.files / self.facts.seconds

    def lines(self) -> Iterator[str]:
        """Yield the lines of the report for people."""
        facts, totals = self.facts, self.facts.totals
        yield f"\n{facts.files} files in {facts.seconds:.1f} s, {self.rate:.0f} jobs/s, by {facts.processes} processes"
        yield f"{totals.functions:,} functions, {totals.classes:,} classes and {totals.lines:,} lines are in them"
        if totals.problems:
            yield f"{totals.problems} are test data and not valid Python; their rows say so"
        yield ""
        for check in self.checks:
            word = click.style("ok  ", fg="green") if check.passed else click.style("FAIL", fg="red")
            yield f"  {word}  {click.style(f'{check.name:<7}', bold=True)} {check.text}"
        yield ""

    def as_dict(self) -> dict[str, Any]:
        """Return the report for programs."""
        facts, totals = self.facts, self.facts.totals
        return {
            "passed": self.passed,
            "checks": [check._asdict() for check in self.checks],
            "python": platform.python_version(),
            "postgresql": facts.postgresql,
            "processes": facts.processes,
            "files": facts.files,
            "rows": totals.files,
            "functions": totals.functions,
            "classes": totals.classes,
            "lines": totals.lines,
            "problems": totals.problems,
            "seconds": round(facts.seconds, 3),
            "jobs_per_second": round(self.rate, 1),
            "retried": self.retried,
            "failed": facts.failed,
            "jobs": {name: _summary(getattr(facts, name)) for name in ("flaky", "sleepy", "deadly")},
            "ticks": len(facts.pulses),
            "exit_code": facts.exit_code,
        }

    @property
    def retried(self) -> int:
        """The number of attempts that were followed by another one."""
        return retries(self._events)

    def _files(self) -> Check:
        rows, files = self.facts.totals.files, self.facts.files
        return Check("files", rows == files and files > 0, f"{rows} rows in the table for {files} files")

    def _flaky(self) -> Check:
        job = self.facts.flaky
        again = " s and ".join(f"{pause:g}" for pause in pauses(self._events, job.id))
        kept = job.state is JobState.COMPLETED and job.attempt == 3 and len(job.errors) == 2  # noqa: PLR2004
        return Check("flaky", kept, f"failed {len(job.errors)} times, again after {again} s, {_now(job)}")

    def _sleepy(self) -> Check:
        job, cause = self.facts.sleepy, _causes(self.facts.sleepy)
        event = next(iter(self._events.find("job.failed", job=job.id)), {})
        ran, killed = event.get("duration", math.nan), event.get("error", "").startswith(WORKER_DIED)
        kept = job.state is JobState.FAILED and cause == ["timeout"] and 1.0 <= ran < 3.0 and not killed  # noqa: PLR2004
        return Check("sleepy", kept, f"was ended after {ran:.1f} s, recorded as {_listed(cause)}, {_now(job)}")

    def _deadly(self) -> Check:
        job, causes, facts = self.facts.deadly, _causes(self.facts.deadly), self.facts
        kept = (
            job.state is JobState.FAILED
            and (job.crashes, causes) == (CRASHES, ["signal:SEGV"] * CRASHES)
            and facts.workers == facts.processes
        )
        text = f"killed {job.crashes} workers ({_listed(causes)}), {_now(job)}"
        return Check("deadly", kept, f"{text}; {facts.workers} of {facts.processes} are back")

    def _pulse(self) -> Check:
        ticks = sorted(event["tick"] for event in self._events.find("cron.enqueued"))
        each = bool(ticks) and ticks == [ticks[0] + PULSE * n for n in range(len(ticks))]
        found = len(self.facts.pulses)
        return Check("pulse", each and found == len(ticks), f"{found} ticks of the clock, one every {PULSE} s")

    def _end(self) -> Check:
        code, left, failed = self.facts.exit_code, self.facts.unfinished, self.facts.failed
        kept = (code, left, failed) == (0, 0, 2)
        return Check("node", kept, f"exit code {code}; {left} jobs left undone, {failed} failed jobs kept")


def _causes(job: Job) -> list[str | None]:
    return [error.get("cause") for error in job.errors]


def _listed(causes: Sequence[str | None]) -> str:
    return ", ".join(dict.fromkeys(map(str, causes))) or "nothing"


def _now(job: Job) -> str:
    return f"{job.state.value} in run {job.attempt}"


def _summary(job: Job) -> dict[str, Any]:
    return {"id": job.id, "state": job.state, "attempt": job.attempt, "crashes": job.crashes, "causes": _causes(job)}
