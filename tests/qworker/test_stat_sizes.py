"""The tables of statistics do not grow over 30 days."""

import json

from psycopg import sql

from qworker.db.connection import connect
from qworker.tallies import Tallies
from tests.database import Database

TASKS, DAYS = 5, 37
TABLES = [sql.Identifier("qworker", name) for name in ("stat", "stat_total", "stat_queue")]


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
        rows: list[tuple[int, ...]] = []
        for day in range(DAYS):
            for hour in range(0, 24, 6):
                with conn.transaction():
                    tallies.flush(conn, source=1, seq=24 * day + hour + 1, version="1", series=series, counts=counts)
                    conn.execute("UPDATE qworker.stat_flush SET at = at - make_interval(hours => %s)", (hour + 1,))
                tallies.fold_flushed(conn)
            while tallies.fold_all(conn):
                pass
            while tallies.delete_old(conn):
                pass
            selects = [sql.SQL("(SELECT count(*) FROM {})").format(table) for table in TABLES]
            rows += conn.execute(sql.SQL("SELECT ") + sql.SQL(", ").join(selects)).fetchall()
            for table in TABLES:
                conn.execute(sql.SQL("UPDATE {} SET at = at - interval '1 day'").format(table))
        assert len(set(rows[34:])) == 1, rows
        stat, total, queue = rows[-1]
        assert stat <= TASKS * 4 * 33
        assert total <= TASKS * 3 * 33, "most of it is in days"
        assert queue <= 2 * 4 * 33
        ((succeeded,),) = conn.execute("SELECT sum(succeeded) FROM qworker.stat").fetchall()
        assert succeeded == stat * 10, "each row is one count: nothing is lost or counted twice"
