"""The jobs of a claim that were not started."""

from collections import deque
from collections.abc import Iterator
from typing import Any

from qworkerd.shared.claim import Claim


class Batch:
    """The jobs of a claim that were not started: the main thread takes the first, the acknowledger the last."""

    __slots__ = ("claim", "pending")

    def __init__(self, claim: Claim, rows: list[tuple[Any, ...]]) -> None:
        self.claim = claim
        self.pending = deque(rows)

    def pop_all(self) -> Iterator[tuple[Any, ...]]:
        """Remove and yield the remaining jobs one by one."""
        while True:
            try:
                row = self.pending.pop()
            except IndexError:
                return
            yield row
