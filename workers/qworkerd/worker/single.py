"""Claims single jobs after a claim of several was rejected, to find the row that causes the error and skip it."""

import json
from collections import Counter
from collections.abc import Sequence
from time import monotonic
from typing import Any

import psycopg

from qworker.claims import ClaimedJob, Claims, JobNames, LaneJob, WriteSuppressed
from qworkerd import log
from qworkerd.outcomes.counting import ENDS
from qworkerd.outcomes.record import error_record, identify
from qworkerd.outcomes.reports import Failure, Reporter
from qworkerd.process.reconnect import ReconnectingConnection, may_concern_one_row
from qworkerd.shared.cause import Cause
from qworkerd.shared.claim import Claim, new_token
from qworkerd.shared.context import NodeContext
from qworkerd.shared.paused import PAST_END
from qworkerd.shared.slots import Phase, Slot
from qworkerd.shared.tally import TallyWriter

#: The result is too large or cannot be decoded. A claim of fewer jobs may succeed; one of a single job finds the row.
UNREADABLE = (
    psycopg.errors.ProgramLimitExceeded,
    psycopg.errors.OutOfMemory,
    psycopg.errors.DataError,
    psycopg.errors.DataCorrupted,
    psycopg.errors.InternalError_,
    UnicodeError,
    MemoryError,
)
#: Time for which a job whose claim is rejected is skipped (seconds), and maximum number of jobs skipped by one call.
SKIP_FOR, MAX_SKIPS = 60.0, 10
#: If this many jobs of a lane are rejected, nothing is claimed from the lane until the first is tried again.
MAX_REJECTED = 100
#: Time allowed for unsent reports when the process ends (seconds).
LAST_REPORTS = 1.0


def may_be_one_job(error: Exception) -> bool:
    """Return whether one of the jobs may have caused the claim to fail."""
    return isinstance(error, UNREADABLE) or (isinstance(error, psycopg.Error) and may_concern_one_row(error))


class SingleClaims:
    """Claims one job at a time, and skips jobs that cannot be claimed because a trigger on the table rejects them.

    True while there are such jobs, because each of them would make a larger claim fail.
    """

    def __init__(
        self, node: NodeContext, slot: Slot, connection: ReconnectingConnection, claims: Claims, tally: TallyWriter
    ) -> None:
        self._tally = tally
        self._node = node
        self._slot = slot
        self._stall = node.settings.stall_timeout
        self._connection = connection
        self._claims = claims
        #: Until when a job is skipped (monotonic), and its lane; the oldest first.
        self._rejected: dict[int, tuple[float, int]] = {}
        self._reporter = Reporter(node.app)
        self._log = log.get()
        #: Whether the last call has tried all available jobs.
        self.complete = True

    def __bool__(self) -> bool:
        while self._rejected:
            job, (until, _) = next(iter(self._rejected.items()))
            if monotonic() < until:
                return True
            del self._rejected[job]
        return False

    def claim_next(self, claim: Claim, cursors: Sequence[int]) -> list[ClaimedJob]:
        """Claim the next job without reading it, then read it; return one row or none.

        A job that cannot be read fails; one that cannot be claimed is skipped for a minute. Raises the database's error
        if no row is the cause.
        """
        self.complete = False
        for _ in range(MAX_SKIPS):
            database = self._connection.get()
            if database is None:
                return []
            parameters = self._parameters(cursors)
            claim.open(new_token())
            try:
                job = self._claims.claim_one(
                    database, node=self._node.table.header.node, token=claim.token, **parameters
                )
            except psycopg.Error as error:
                if not may_be_one_job(error) or not self._connection.usable_after(error):
                    raise
                found = self._claims.first(database, **parameters)
                if found is None:
                    raise
                self._skip(found, error)
                continue
            if job is None and (found := self.suppressed(database, claim, cursors)) is not None:
                self._skip(found, WriteSuppressed())
                continue
            if job is None:
                self.complete = True
                return []
            return self._read(database, claim, [job])
        return []

    def suppressed(self, database: psycopg.Connection[Any], claim: Claim, cursors: Sequence[int]) -> LaneJob | None:
        """Return an available job that a claim does not change, or None."""
        parameters = self._parameters(cursors)
        if self._claims.first(database, **parameters) is None:  # the usual case, which then needs no rollback
            return None
        with database.transaction(force_rollback=True):
            found = self._claims.first(database, **parameters)
            if found is None:
                return None
            node = self._node.table.header.node
            return None if self._claims.claim_one(database, node=node, token=claim.token, **parameters) else found

    def _skip(self, job: LaneJob, error: psycopg.Error) -> None:
        self._rejected[job.id] = monotonic() + SKIP_FOR, self._node.watermarks.index[job.queue, job.priority]
        self._log.error(
            "job.claim_refused", job=job.id, queue=job.queue, error=str(error).strip(), retry_in=SKIP_FOR,
            hint="check the triggers on the table job; this job is skipped for now, the jobs behind it are not",
        )  # fmt: skip

    def _parameters(self, cursors: Sequence[int]) -> dict[str, Any]:
        """Return the parameters that select the next job: the lanes, their cursors, and the jobs to skip."""
        watermarks = self._node.watermarks
        return {
            "queues": watermarks.queues, "priorities": watermarks.priorities, "cursors": self._limit(cursors),
            "excluded": list(self._rejected),
        }  # fmt: skip

    def _limit(self, cursors: Sequence[int]) -> list[int]:
        """Return the cursors, which for lanes with too many rejected jobs are above the seq of every job."""
        counts = Counter(lane for _, lane in self._rejected.values())
        return [PAST_END if counts[lane] >= MAX_REJECTED else cursor for lane, cursor in enumerate(cursors)]

    def read_claimed(self, claim: Claim, *, whole: bool) -> list[ClaimedJob]:
        """Read the jobs of a claim whose result was too large for this process one by one, or release them.

        whole: read the whole claim; otherwise release all of its jobs.
        """
        database = self._connection.get()
        if database is None:
            return []
        jobs = self._claims.claimed(database, self._node.table.header.node, claim.token)
        if whole:
            return self._read(database, claim, jobs)
        self._claims.release(database, claim.token, jobs)
        self._node.watermarks.report_release(self._slot)
        return []

    def _read(self, database: psycopg.Connection[Any], claim: Claim, jobs: list[int]) -> list[ClaimedJob]:
        """Read claimed jobs; one that cannot be read fails, and the others continue."""
        rows: list[ClaimedJob] = []
        for job in jobs:
            self._slot.enter(Phase.CLAIMING, monotonic() + self._stall)
            try:
                rows += self._claims.read(database, claim.token, job)
            except UNREADABLE as error:
                self._log.error("job.unreadable", job=job, error=str(error).strip())
                self._fail(database, claim, job, f"the job cannot be read: {str(error).strip()[:1000]}")
        return rows

    def _fail(self, database: psycopg.Connection[Any], claim: Claim, job: int, message: str) -> None:
        """Fail a job that cannot be read, and report it. Its failure hook would have to read it, and is not run."""
        try:
            names = self._claims.read_names(database, claim.token, job)
        except UNREADABLE:
            names = JobNames()
        error = identify(error_record("PayloadTooLarge", message, Cause.UNREADABLE, attempt=names.attempt), names.task)
        if states := self._claims.fail(database, claim.token, job, error=json.dumps(error), hook=False):
            self._tally.count(self._tally.numbers[names.queue, names.task], ENDS[states[job]])
            self._reporter.submit(
                Failure(job=job, task=names.task, queue=names.queue, attempt=names.attempt, error=error, final=True)
            )

    def close(self) -> None:
        """Send the remaining reports."""
        self._reporter.close(LAST_REPORTS)
