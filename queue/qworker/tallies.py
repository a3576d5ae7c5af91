"""Write what a node has counted, and move it to wider periods."""

from collections.abc import Sequence

from qworker.db.arrays import integer_array, text_array
from qworker.db.statements import DEFAULT_SCHEMA, Database, Statements

#: The lengths of the periods of `stat` and `stat_queue` (minutes), and how long their rows are kept (seconds): the last
#: hour by minutes, the last day by ten minutes, the last 32 days by hours. Each is moved when it is older than what is
#: read from it.
FOLDS = ((1, 10, 4_200.0), (10, 60, 90_000.0))
WIDEST = 60
#: Those of `stat_total`. A total that begins in the last 25 hours reads its hours, an older one its days.
TOTAL_FOLDS = ((1, 10, 120.0), (10, 60, 120.0), (60, 1_440, 93_600.0))
WIDEST_TOTAL = 1_440
DAY = 86_400.0
#: How long rows are kept (days): those of hours, samples of depth, nodes that have written, marks of versions.
STAT_DAYS, DEPTH_DAYS, SOURCE_DAYS, DEPLOYMENT_DAYS = 32, 7, 40, 400
#: Maximum number of writes, and of rows of `stat`, that one statement moves.
MAX_WRITES, MAX_ROWS = 100, 20_000


class Tallies(Statements):
    """The statements of a node about its counts; each is one commit unless it says otherwise."""

    __slots__ = ()

    def __init__(self, schema: str = DEFAULT_SCHEMA) -> None:
        super().__init__("tallies", schema)

    def series(self, database: Database, names: Sequence[tuple[str, str]]) -> list[int]:
        """Return the ids of pairs of queue and task, in their order; add those that are new."""
        parameters = {
            "queues": text_array([queue for queue, _ in names]), "tasks": text_array([task for _, task in names]),
        }  # fmt: skip
        found: list[int] = self._column(database, "find_series", **parameters)
        if len(found) < len(names):
            self._count(database, "add_series", **parameters)
            found = self._column(database, "find_series", **parameters)
        return found

    def flush(
        self, database: Database, *, source: int, seq: int, version: str, series: Sequence[int], counts: str,
        host: str = "",
    ) -> bool:  # fmt: skip
        """Write the counts of a node, a JSON array, in the caller's transaction; return False if `seq` was written."""
        if series:
            self._count(database, "touch_series", ids=integer_array(series))
        return bool(self._scalar(database, "flush", source=source, seq=seq, version=version, counts=counts, host=host))

    def fold_flushed(self, database: Database) -> int:
        """Move what nodes have written before this minute to rows of a minute; return their number."""
        return self._count(database, "fold_flushed", limit=MAX_WRITES)

    def fold(self, database: Database, width: int, wider: int, age: float, *, statement: str = "fold") -> int:
        """Move the oldest period that ended longer ago than `age` seconds to a wider one; return the number of rows."""
        return self._count(database, statement, width=width, wider=wider, age=age, limit=MAX_ROWS)

    def fold_all(self, database: Database) -> int:
        """Move a period in each table, each in a commit; return the number of rows. Repeat it until there are none.

        A wider period is moved when no narrower one is left to be moved, so that its rows become few.
        """
        total = 0
        for statement, folds in (("fold", FOLDS), ("fold_queues", FOLDS), ("fold_totals", TOTAL_FOLDS)):
            for fold in folds:
                if rows := self.fold(database, *fold, statement=statement):
                    total += rows
                    break
        return total

    def delete_old(self, database: Database) -> int:
        """Delete up to 1,000 rows of each kind that are too old; return their number."""
        return sum(
            (
                self._count(database, "delete_old_stats", width=WIDEST, age=STAT_DAYS * DAY),
                self._count(database, "delete_old_queues", width=WIDEST, age=STAT_DAYS * DAY),
                self._count(database, "delete_old_totals", width=WIDEST_TOTAL, age=STAT_DAYS * DAY),
                self._count(database, "delete_old_depths", age=DEPTH_DAYS * DAY),
                self._count(database, "delete_old_series", days=SOURCE_DAYS),
                self._count(database, "delete_old_sources", days=SOURCE_DAYS),
                self._count(database, "delete_old_deployments", days=DEPLOYMENT_DAYS),
            )
        )
