"""The jobs of a claim that were not started."""

from collections import deque
from collections.abc import Iterator

from qworker.claims import ClaimedJob
from qworkerd.shared.claim import Claim


class Batch:
    """The jobs of a claim that were not started: the main thread takes the first, the acknowledger the last."""

    __slots__ = ("changes", "claim", "pending")

    def __init__(self, claim: Claim, jobs: list[ClaimedJob], changes: int = 0) -> None:
        #: The count of changes of the paused queues when the jobs were claimed.
        self.changes = changes
        self.claim = claim
        self.pending = deque(jobs)

    def pop_all(self) -> Iterator[ClaimedJob]:
        """Remove and yield the remaining jobs one by one."""
        while True:
            try:
                job = self.pending.pop()
            except IndexError:
                return
            yield job
