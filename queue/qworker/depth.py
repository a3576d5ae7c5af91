"""Sample the sizes of the queues, and read the samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from qworker.db.arrays import integer_array, text_array
from qworker.db.statements import DEFAULT_SCHEMA, Database, Statements
from qworker.migrations import lock_key

#: Interval of samples (seconds).
INTERVAL = 15
#: A table of up to LIVE pages is counted by a reader itself.
LIVE = 500
#: A table of up to EXACT pages is counted, and of a larger one SAMPLED pages; in a lane, up to COUNTED jobs.
EXACT, SAMPLED, COUNTED = 8_000, 2_000, 1_000


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """The number of jobs of a queue when it was sampled."""

    queue: str
    at: datetime
    available: int
    #: Scheduled jobs whose time has come, but that are not available yet; included in `scheduled`.
    due: int
    scheduled: int
    running: int
    failed: int
    #: How long the oldest available job has waited (seconds); None if there is none.
    oldest: float | None
    #: False if the numbers are estimates from a sample of the table.
    exact: bool


def from_row(*, at: float, **columns: Any) -> QueueDepth:
    """Return a sample from its row; `at` is in seconds since 1970."""
    return QueueDepth(at=datetime.fromtimestamp(at, UTC), **columns)


class Depths(Statements):
    """The statements about sizes."""

    __slots__ = ("_key",)

    def __init__(self, schema: str = DEFAULT_SCHEMA) -> None:
        super().__init__("depth", schema)
        _, self._key = lock_key(schema)

    def sample(
        self, database: Database, *, queues: Sequence[str], priorities: Sequence[int], watermarks: Sequence[int]
    ) -> int:
        """Sample the sizes unless another node has done so in this interval; return the number of rows.

        The lanes of this node, with their low watermarks, are counted exactly while they are short.
        """
        return self._count(
            database, "sample", first=int.from_bytes(b"qwdp"), second=self._key, interval=INTERVAL, exact=EXACT,
            sampled=SAMPLED, counted=COUNTED, queues=text_array(queues), priorities=integer_array(priorities),
            watermarks=integer_array(watermarks),
        )  # fmt: skip

    def newest(self, database: Database) -> list[QueueDepth]:
        """Return the last sample of each queue that held jobs then."""
        return self._records(database, "newest", from_row)

    def current(self, database: Database) -> list[QueueDepth]:
        """Return the sizes of the queues as they are now if the table is small, and otherwise the last sample."""
        return self._records(database, "current", from_row, live=LIVE)
