"""What was counted of a queue or a task in a period: the ends of attempts and jobs, their waits and run times."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qworker import histogram


@dataclass(frozen=True, slots=True)
class Durations:
    """A histogram of durations. All values are in seconds."""

    #: The number of durations by bucket: see `qworker.histogram`.
    buckets: Mapping[int, int]
    #: Their sum.
    seconds: float = 0.0
    #: The bucket below which durations count as 0.
    instant: int = 0

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self.buckets.values())

    @property
    def mean(self) -> float | None:
        """Their mean; None if there are none."""
        return self.seconds / self.count if self.count else None

    def quantile(self, fraction: float) -> float | None:
        """Return a quantile, which is off by at most 9 %; None if there are none."""
        return histogram.quantile(self.buckets, fraction, instant=self.instant)

    def as_dict(self) -> dict[str, float | None]:
        """Return their number, mean, median, 95th and 99th percentile, and maximum."""
        return {
            "count": self.count, "mean": self.mean, "p50": self.quantile(0.5), "p95": self.quantile(0.95),
            "p99": self.quantile(0.99), "max": self.quantile(1.0),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Counts:
    """What nodes have counted. What is done by hand, such as a cancellation by a command, is not in it."""

    #: Attempts that succeeded, and so completed their job.
    succeeded: int = 0
    #: Attempts that raised an exception, and were followed by another one.
    retried: int = 0
    #: Attempts that raised an exception, after which the job failed or was discarded.
    raised: int = 0
    #: Attempts that exceeded their timeout, whatever followed.
    timed_out: int = 0
    #: Attempts whose worker was killed for lack of memory.
    oom: int = 0
    #: Attempts whose worker died of a signal.
    signalled: int = 0
    #: Attempts whose worker exited.
    exited: int = 0
    #: Attempts whose worker stalled and was killed.
    stalled: int = 0
    #: Attempts that ended because the node could not renew its lease.
    lease_lost: int = 0
    #: Attempts that ended because the supervisor died.
    supervisor_lost: int = 0
    #: Jobs that another node has taken over from a dead node.
    node_lost: int = 0
    #: Attempts that a shutdown interrupted.
    interrupted: int = 0
    #: Attempts that were snoozed.
    snoozed: int = 0
    #: Attempts that a worker released because it does not know the task.
    unknown_task: int = 0
    #: Attempts that were interrupted because their job was cancelled.
    cancelled_attempts: int = 0
    #: Jobs that failed.
    failed: int = 0
    #: Jobs that a node cancelled, including those that expired.
    cancelled: int = 0
    #: Jobs that a node discarded.
    discarded: int = 0
    #: Jobs that were not started before their expiry time.
    expired: int = 0
    #: Claimed jobs that were released before they were started.
    released: int = 0
    #: From when a job could start until it was claimed: of each attempt that ended.
    wait: Durations = field(default_factory=lambda: Durations({}))
    #: The run times of handlers; those under a millisecond count as 0.
    run: Durations = field(default_factory=lambda: Durations({}))

    @property
    def crashed(self) -> int:
        """Attempts whose worker died, possibly because of the job."""
        return self.oom + self.signalled + self.exited

    @property
    def lost(self) -> int:
        """Attempts that ended with their worker or node, without being the cause."""
        return self.stalled + self.lease_lost + self.supervisor_lost + self.node_lost

    @property
    def attempts(self) -> int:
        """Attempts that ended by themselves, by a timeout or with their worker."""
        return self.succeeded + self.retried + self.raised + self.timed_out + self.crashed

    @property
    def failure_ratio(self) -> float | None:
        """The part of these attempts that did not succeed; None if there were none."""
        return 1 - self.succeeded / self.attempts if self.attempts else None

    def as_dict(self) -> dict[str, Any]:
        """Return all numbers by name."""
        numbers = {name: getattr(self, name) for name in COUNTERS}
        return numbers | {"wait": self.wait.as_dict(), "run": self.run.as_dict()}


#: The names of the counters.
COUNTERS = tuple(name for name in Counts.__dataclass_fields__ if name not in ("wait", "run"))


def total(parts: Iterable[Counts]) -> Counts:
    """Return the sum of counts, such as those of several queues."""
    found = list(parts)
    numbers = {name: sum(getattr(one, name) for one in found) for name in COUNTERS}
    return Counts(**numbers, wait=_merged([one.wait for one in found]), run=_merged([one.run for one in found]))


def _merged(durations: Sequence[Durations]) -> Durations:
    buckets: dict[int, int] = {}
    for one in durations:
        for bucket, count in one.buckets.items():
            buckets[bucket] = buckets.get(bucket, 0) + count
    instant = max((one.instant for one in durations), default=0)
    return Durations(buckets, sum(one.seconds for one in durations), instant)


def counts_of(
    *, run_seconds: float | None, wait_seconds: float | None, run_histogram: str | None, wait_histogram: str | None,
    **counters: int | None,
) -> Counts:  # fmt: skip
    """Return what was counted from a row; None is 0."""
    wait = Durations(histogram.unpack(wait_histogram), wait_seconds or 0.0)
    run = Durations(histogram.unpack(run_histogram), run_seconds or 0.0, histogram.MILLISECOND)
    return Counts(**{name: number or 0 for name, number in counters.items()}, wait=wait, run=run)
