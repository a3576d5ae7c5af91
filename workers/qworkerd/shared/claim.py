"""A worker's claim in shared memory: its token, its jobs and their outcomes."""

import enum
import os
from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass

#: Maximum number of jobs of a claim.
MAX_JOBS = 256
#: Number of claims that a worker may have open: the one that runs, the one being acknowledged, and others that stay
#: open because another session has locked their rows.
MAX_CLAIMS = 32
#: The number of a task that this node does not know.
UNKNOWN_TASK = 0xFFFF

#: Bytes for the outcomes of one claim: the largest result fits, or 256 outcomes of 360 bytes.
OUTCOME_BYTES = 96 * 1024

_WORD = 8
#: Marks jobs as counted.
_COUNTED = b"\1" * MAX_JOBS
#: The words of the head.
_TOKEN, _COUNT = 0, 1
#: Offset of the first outcome (0 means none), and the bytes of the size that precedes each outcome.
_FIRST_OUTCOME, _SIZE = 8, 4
#: Bytes of a claim: token and count; ids, attempts, tasks, series, statuses, whether they are counted, offsets of
#: outcomes; and these.
CLAIM_SIZE = 2 * _WORD + MAX_JOBS * (8 + 4 + 2 + 2 + 2 + 4) + OUTCOME_BYTES


class Status(enum.IntEnum):
    """The progress of a claimed job. RUNNING is stored after everything else that belongs to the run."""

    UNSTARTED = 0
    RUNNING = 1
    SUCCEEDED = 2
    DONE = 3

    @classmethod
    def _missing_(cls, value: object) -> "Status":  # noqa: ARG003 - the signature is Enum's
        """Read any other value as DONE without an outcome: the writer's memory is damaged."""
        return cls.DONE


def new_token() -> int:
    """Return a new token: 63 random bits, never 0."""
    return int.from_bytes(os.urandom(8)) >> 1 or 1


@dataclass(frozen=True, slots=True)
class Entry:
    """A claimed job, as other processes read it."""

    id: int
    task: int
    attempt: int
    status: Status
    #: The number of its queue and task: see `SeriesNumbers`.
    series: int = 0
    #: Whether its end was counted.
    counted: bool = False


class Claim:
    """A claim of a worker: its token and its jobs.

    Values are stored in an order that keeps the memory of a dead writer consistent: the token before the claim is sent,
    the count after the entries, an outcome before its offset, and both before the status that ends the job.
    """

    __slots__ = (
        "_head",
        "_offsets",
        "_outcomes",
        "_series",
        "_used",
        "attempts",
        "counted",
        "ids",
        "series",
        "statuses",
        "tasks",
        "unsettled",
        "waits",
    )

    def __init__(self, memory: memoryview) -> None:
        self._head = memory[: 2 * _WORD].cast("q")
        at = 2 * _WORD
        self.ids = memory[at : at + 8 * MAX_JOBS].cast("q")
        at += 8 * MAX_JOBS
        self.attempts = memory[at : at + 4 * MAX_JOBS].cast("I")
        at += 4 * MAX_JOBS
        self.tasks = memory[at : at + 2 * MAX_JOBS].cast("H")
        at += 2 * MAX_JOBS
        self._series = memory[at : at + 2 * MAX_JOBS].cast("H")
        at += 2 * MAX_JOBS
        self.statuses = memory[at : at + MAX_JOBS]
        at += MAX_JOBS
        self.counted = memory[at : at + MAX_JOBS]
        at += MAX_JOBS
        self._offsets = memory[at : at + 4 * MAX_JOBS].cast("I")
        at += 4 * MAX_JOBS
        self._outcomes = memory[at : at + OUTCOME_BYTES]
        self._used = _FIRST_OUTCOME  # private to the writer
        #: Number of jobs not yet settled; private to the writer.
        self.unsettled = 0
        #: The numbers of the jobs' series, and how long they have waited (seconds); private to the writer.
        self.series: list[int] = []
        self.waits: list[float] = []

    @property
    def token(self) -> int:
        """The fencing token of this claim; 0 if the claim is free."""
        return self._head[_TOKEN]

    @property
    def _count(self) -> int:
        # The cause of the worker's death may have damaged this memory before.
        return min(max(self._head[_COUNT], 0), MAX_JOBS)

    def open(self, token: int) -> None:
        """Store the token; call this before the claim is sent."""
        self._head[_COUNT] = 0
        self.series, self.waits = [], []
        self._head[_TOKEN] = token

    def fill(self, ids: Sequence[int], tasks: Sequence[int], attempts: Sequence[int]) -> None:
        """Store the jobs that were claimed."""
        count = len(ids)
        self.statuses[:count] = self.counted[:count] = bytes(count)
        self.ids[:count] = array("q", ids)
        self.attempts[:count] = array("I", attempts)
        self.tasks[:count] = array("H", tasks)
        self.clear_outcomes(count)
        self.unsettled = count
        self._head[_COUNT] = count

    def count_as(self, series: list[int], waits: list[float]) -> None:
        """Store under which numbers the jobs are counted, and how long they have waited (seconds)."""
        count, first = len(series), series[0]
        # Usually all are of one queue and task.
        self._series[:count] = array("H", (first,)) * count if series.count(first) == count else array("H", series)
        self.series, self.waits = series, waits

    def close(self) -> None:
        """Free the claim: all its jobs are settled, or it has none.

        The token is cleared last. From then on the worker's other thread may open the claim and fill it.
        """
        self._head[_COUNT] = 0
        self._head[_TOKEN] = 0

    def store_outcome(self, index: int, outcome: bytes) -> bool:
        """Store a job's outcome, before the status that ends the job; return False if there is not enough space."""
        start = self._used
        end = start + _SIZE + len(outcome)
        if end > OUTCOME_BYTES:
            return False
        self._outcomes[start : start + _SIZE] = len(outcome).to_bytes(_SIZE, "little")
        self._outcomes[start + _SIZE : end] = outcome
        self._offsets[index] = start
        self._used = end
        return True

    def read_outcome(self, index: int) -> bytes | None:
        """Return a job's stored outcome, or None. The cause of the writer's death may have damaged the memory."""
        start = self._offsets[index]
        if not _FIRST_OUTCOME <= start <= OUTCOME_BYTES - _SIZE:
            return None
        size = int.from_bytes(self._outcomes[start : start + _SIZE], "little")
        found = bytes(self._outcomes[start + _SIZE : start + _SIZE + size])
        return found if len(found) == size else None

    def clear_outcomes(self, count: int) -> None:
        """Clear the outcomes of the first `count` jobs, which are stored in the database."""
        self._offsets[:count] = array("I", bytes(4 * count))
        self._used = _FIRST_OUTCOME

    def mark(self, jobs: Collection[int], status: Status) -> None:
        """Set the status of some of the jobs."""
        for index, job in enumerate(self.ids[: self._count]):
            if job in jobs:
                self.statuses[index] = status

    def mark_counted(self, jobs: Collection[int]) -> None:
        """Store that the ends of some of the jobs are counted; call this before they are.

        A process that is killed in between counts them too rarely then, and its successor does not count them twice.
        """
        for index, job in enumerate(self.ids[: self._count]):
            if job in jobs:
                self.counted[index] = 1

    def mark_counted_from(self, start: int, count: int) -> None:
        """Store the same of adjacent jobs."""
        self.counted[start : start + count] = _COUNTED[:count]

    def entries(self) -> list[Entry]:
        """Return the jobs; empty until the claim has been answered."""
        return [self._entry(index, Status(self.statuses[index])) for index in range(self._count)]

    def running_index(self) -> int | None:
        """Return the index of the job whose handler is running."""
        found = bytes(self.statuses[: self._count]).find(Status.RUNNING)
        return None if found < 0 else found

    def current(self) -> Entry | None:
        """Return the job whose handler is running."""
        found = self.running_index()
        return None if found is None else self._entry(found, Status.RUNNING)

    def _entry(self, index: int, status: Status) -> Entry:
        return Entry(
            id=self.ids[index], task=self.tasks[index], attempt=self.attempts[index], status=status,
            series=self._series[index], counted=bool(self.counted[index]),
        )  # fmt: skip
