"""The tables of statistics do not grow over 30 days."""

import json

from qworker.db.connection import connect
from qworker.tallies import FOLDS, Tallies
from tests.database import Database

TASKS, DAYS = 5, 36


def test_the_tables_do_not_grow(database: Database) -> None:
    """A node counts every six hours; days pass by dating all rows back. After 32 days a day adds nothing."""
    tallies = Tallies()
    with connect(database.dsn, "test") as conn:
        series = tallies.series(conn, [("default", f"task{n}") for n in range(TASKS)])
        counts = json.dumps([
            {"series": number, "succeeded": 10, "run_seconds": 1.0, "run_bucket": [*range(21)], "run_count": [1] * 21,
             "wait_seconds": 1.0, "wait_bucket": [*range(21)], "wait_count": [1] * 21}
            for number in series
        ])  # fmt: skip
        rows: list[int] = []
        for day in range(DAYS):
            for hour in range(0, 24, 6):
                with conn.transaction():
                    tallies.flush(conn, source=1, seq=24 * day + hour + 1, version="1", series=series, counts=counts)
                    conn.execute("UPDATE qworker.stat_flush SET at = at - make_interval(hours => %s)", (hour + 1,))
                tallies.fold_flushed(conn)
            for fold in FOLDS:
                while tallies.fold(conn, *fold):
                    pass
            while tallies.delete_old(conn):
                pass
            rows.append(conn.execute("SELECT count(*) FROM qworker.stat").fetchone()[0])  # type: ignore[index]
            conn.execute("UPDATE qworker.stat SET at = at - interval '1 day'")
        assert len(set(rows[33:])) == 1, rows
        assert rows[-1] <= TASKS * 4 * 33
        ((total,),) = conn.execute("SELECT sum(succeeded) FROM qworker.stat").fetchall()
        assert total == rows[-1] * 10, "each row is one count: nothing is lost or counted twice"
