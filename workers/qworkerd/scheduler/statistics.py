"""Writes what the node has counted to the database, moves old counts to wider periods, and samples the queues."""

import json
from collections.abc import Callable
from socket import gethostname
from time import monotonic
from typing import Any

from qworker.db.statements import Database
from qworker.depth import INTERVAL, Depths
from qworker.histogram import BUCKETS
from qworker.tallies import MAX_WRITES, Tallies
from qworkerd.process.throttle import Throttle
from qworkerd.scheduler.maintenance import MORE, MaintenanceTasks
from qworkerd.shared.context import NodeContext
from qworkerd.shared.series import FIRST, OTHER, OTHER_NAMES
from qworkerd.shared.tally import RUN_BUCKETS, WAIT_BUCKETS, Counter

#: Intervals of the tasks (seconds).
FLUSH_INTERVAL, FOLD_INTERVAL, RETENTION_INTERVAL = 60.0, 600.0, 3_600.0
#: The interval of samples while nothing happens: readers do not use samples that are older than a minute.
QUIET_SAMPLES = 45.0
#: Time after which a task stops until its next turn (seconds): it must not delay the renewal of the lease.
TIME_LIMIT = 0.5
#: Lanes that take longer (seconds) are counted less often: that may take only one part in LANES_FACTOR of the time.
EXPENSIVE_LANES, LANES_FACTOR = 0.2, 100

_COUNTERS = [(counter, counter.name.lower()) for counter in Counter if counter not in (Counter.RUN, Counter.WAIT)]
_MICRO = 1e6
#: No node ends more attempts between two writes. The columns are integers, and other nodes add to the same row.
_MOST = 10_000_000


class Statistics:
    """The tasks of the statistics; each can run on every node at the same time."""

    def __init__(self, node: NodeContext, version: str) -> None:
        self._node = node
        self._version = version
        self._tallies = Tallies(node.settings.schema)
        self._depths = Depths(node.settings.schema)
        self._counting = Throttle(LANES_FACTOR, interval=0.0, cheap=EXPENSIVE_LANES)

    def add_to(self, maintenance: MaintenanceTasks) -> None:
        """Add the tasks that run at a fixed interval."""
        maintenance.add("statistics", FLUSH_INTERVAL, self.flush, deferred=True)
        maintenance.add(
            "fold", FLUSH_INTERVAL, self.fold_flushed, deferred=True, quiet_interval=FOLD_INTERVAL, at_end=True
        )
        maintenance.add("fold wider", FOLD_INTERVAL, self.fold, deferred=True, at_end=True)
        maintenance.add("delete statistics", RETENTION_INTERVAL, self.delete_old, deferred=True, at_end=True)
        maintenance.add("depth", INTERVAL, self.sample, deferred=True, quiet_interval=QUIET_SAMPLES)

    def flush(self, database: Database) -> None:
        """Write what the node has counted since the last write. A write that was not confirmed is sent again."""
        tally, checkpoint = self._node.tally, self._node.checkpoint
        names = [OTHER_NAMES, *tally.numbers.names()]
        if not checkpoint.pending:
            checkpoint.prepare(tally.read(series) for series in range(FIRST + len(names) - 1))
        changes = {}
        for series, pair in enumerate(names, OTHER):
            if cells := checkpoint.difference(series):
                changes[pair] = cells
        if changes or not checkpoint.confirmed:  # the first write also tells since when this version runs
            with database.transaction():
                ids = self._tallies.series(database, list(changes))
                counts = [
                    {"series": number, **_counts(cells)} for number, cells in zip(ids, changes.values(), strict=True)
                ]
                self._tallies.flush(
                    database, source=checkpoint.source, seq=checkpoint.confirmed + 1, version=self._version, series=ids,
                    counts=json.dumps(counts, separators=(",", ":")), host=gethostname(),
                )  # fmt: skip
        checkpoint.confirm()

    def fold_flushed(self, database: Database) -> object:
        """Move what all nodes have written before this minute to rows of a minute."""
        until = monotonic() + TIME_LIMIT
        while self._tallies.fold_flushed(database) >= MAX_WRITES:
            if monotonic() > until:
                return MORE
        return None

    def fold(self, database: Database) -> object:
        """Move old rows to wider periods, one period at a time."""
        return _repeat(lambda: self._tallies.fold_all(database))

    def delete_old(self, database: Database) -> object:
        """Delete what is older than the retention."""
        return _repeat(lambda: self._tallies.delete_old(database))

    def sample(self, database: Database) -> None:
        """Sample the sizes of the queues, unless another node does.

        If it takes long to count the lanes, because an old snapshot keeps dead entries behind their watermarks, most
        samples are without them: readers count by themselves if they have no sample of the last minute.
        """
        began, watermarks = monotonic(), self._node.watermarks
        counted = began >= self._counting.due
        self._depths.sample(
            database,
            queues=watermarks.queues if counted else [],
            priorities=watermarks.priorities if counted else [],
            watermarks=watermarks.scan_start() if counted else [],
        )
        if counted:
            self._counting.record(monotonic(), monotonic() - began)


def _repeat(step: Callable[[], int]) -> object:
    """Repeat a statement until it finds no row; return MORE if time was up before."""
    until = monotonic() + TIME_LIMIT
    while step():
        if monotonic() > until:
            return MORE
    return None


def _counts(cells: list[int]) -> dict[str, Any]:
    """Return the counts of a series as they are stored: what is 0 is left out."""
    found: dict[str, Any] = {name: min(cells[counter], _MOST) for counter, name in _COUNTERS if cells[counter]}
    for name, total, start in (("run", Counter.RUN, RUN_BUCKETS), ("wait", Counter.WAIT, WAIT_BUCKETS)):
        buckets = [bucket for bucket in range(BUCKETS) if cells[start + bucket]]
        if buckets:
            found[f"{name}_seconds"] = cells[total] / _MICRO
            found[f"{name}_bucket"] = buckets
            found[f"{name}_count"] = [min(cells[start + bucket], _MOST) for bucket in buckets]
    return found
