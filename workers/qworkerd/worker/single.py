"""Claims of a single job, for when one of many was refused: they tell which row is to blame, and step over it."""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import psycopg

from qworker.claims import Claims
from qworkerd import log
from qworkerd.process.reconnect import ReconnectingConnection, is_of_a_row
from qworkerd.shared.claim import Claim, new_token
from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Phase, Slot

#: The answer is too large or cannot be made out: the same claim for fewer jobs may pass, and for one job tells which.
TOO_MUCH = (
    psycopg.errors.ProgramLimitExceeded,
    psycopg.errors.OutOfMemory,
    psycopg.errors.DataError,
    psycopg.errors.DataCorrupted,
    psycopg.errors.InternalError_,
    UnicodeError,
    MemoryError,
)
#: For how long a job whose claim is refused is stepped over (seconds), and how many such jobs one call steps over.
STEP_OVER, STEPS = 60.0, 10
#: After so many refused jobs of one queue and priority none of that pair is claimed until the first is tried again.
MANY = 100
#: A place behind every job.
END = 2**63 - 1


def may_be_one_job(error: Exception) -> bool:
    """Tell whether one of the jobs may be to blame for the failure of a claim."""
    return isinstance(error, TOO_MUCH) or (isinstance(error, psycopg.Error) and is_of_a_row(error))


class SingleClaims:
    """Claims one job, and remembers which jobs cannot be claimed: a trigger on the table refuses them.

    True while there are such jobs; a claim of many would fail for each of them.
    """

    def __init__(self, node: NodeContext, slot: Slot, link: ReconnectingConnection, claims: Claims) -> None:
        self._node = node
        self._slot = slot
        self._stall = node.settings.stall_timeout
        self._link = link
        self._claims = claims
        #: Until when a job is stepped over (monotonic), and the number of its queue and priority; the oldest first.
        self._refused: dict[int, tuple[float, int]] = {}
        self._log = log.get()
        #: Whether the last call has looked at all there is.
        self.complete = True

    def __bool__(self) -> bool:
        while self._refused:
            job, (until, _) = next(iter(self._refused.items()))
            if monotonic() < until:
                return True
            del self._refused[job]
        return False

    def take(self, claim: Claim, cursors: Sequence[int]) -> list[tuple[Any, ...]]:
        """Claim the next job without reading it, then read it; return no row or one.

        A job that cannot be read fails, and one that cannot be claimed is stepped over for a minute. Raises the
        database's error when it says nothing about a row.
        """
        self.complete = False
        for _ in range(STEPS):
            database = self._link.get()
            if database is None:
                return []
            floors = self._node.watermarks
            where: dict[str, Any] = {
                "queues": floors.queues, "priorities": floors.priorities, "cursors": self._limit(cursors),
                "spared": list(self._refused),
            }  # fmt: skip
            claim.open(new_token())
            try:
                job = self._claims.claim_one(database, node=self._node.table.header.node, token=claim.token, **where)
            except psycopg.Error as error:
                if not may_be_one_job(error) or not self._link.usable_after(error):
                    raise
                found = self._claims.first(database, **where)
                if found is None:
                    raise
                self._step_over(*found, error)
                continue
            if job is None:
                self.complete = True
                return []
            return self._read(database, claim, [job])
        return []

    def _step_over(self, job: int, queue: str, priority: int, error: psycopg.Error) -> None:
        self._refused[job] = monotonic() + STEP_OVER, self._node.watermarks.index[queue, priority]
        self._log.error(
            "job.claim_refused", job=job, queue=queue, error=str(error).strip(), again_in=STEP_OVER,
            hint="does a trigger on the table of jobs raise it? The job waits, and those behind it go on",
        )  # fmt: skip

    def _limit(self, cursors: Sequence[int]) -> list[int]:
        """Return where the claim begins: behind all jobs, for pairs of which too many were refused."""
        counts = Counter(pair for _, pair in self._refused.values())
        return [END if counts[pair] >= MANY else cursor for pair, cursor in enumerate(cursors)]

    def read_claimed(self, claim: Claim, *, whole: bool) -> list[tuple[Any, ...]]:
        """Read one by one what a claim has got whose answer was too much for this process; or hand it back."""
        database = self._link.get()
        if database is None:
            return []
        jobs = self._claims.claimed(database, self._node.table.header.node, claim.token)
        if whole:
            return self._read(database, claim, jobs)
        self._claims.release(database, claim.token, jobs)
        self._node.watermarks.report_release(self._slot)
        return []

    def _read(self, database: psycopg.Connection[Any], claim: Claim, jobs: list[int]) -> list[tuple[Any, ...]]:
        """Read jobs that are claimed; one that cannot be read fails, and the others go on."""
        rows: list[tuple[Any, ...]] = []
        for job in jobs:
            self._slot.enter(Phase.CLAIMING, monotonic() + self._stall)
            try:
                rows += self._claims.read(database, claim.token, job)
            except TOO_MUCH as error:
                self._log.error("job.unreadable", job=job, error=str(error).strip())
                self._claims.fail(database, claim.token, job, error=_unreadable(error), hook=False)
        return rows


def _unreadable(error: Exception) -> str:
    return json.dumps({
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"), "type": "PayloadTooLarge", "cause": "unreadable",
        "message": f"the job cannot be read: {str(error).strip()[:1000]}", "traceback": "",
    })  # fmt: skip
