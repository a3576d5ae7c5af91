"""Checks of vacuum and statistics."""

from qworker.doctor import Row
from qworker.durations import format_duration
from qworker.findings import Severity
from qworkerd.doctor.check import Explained, Subject, check
from qworkerd.doctor.wording import count, identifier

RELOAD = "SELECT pg_reload_conf();"


@check("autovacuum-off", Severity.WARNING, "doctor_vacuum", "autovacuum")
def autovacuum_off(row: Row, subject: Subject) -> Explained:
    """Find disabled autovacuum."""
    if row["relation"] is None:
        return Explained(
            f"{row['subject']} is off: dead rows of all tables are kept, and claims become slower",
            remedy=(f"ALTER SYSTEM SET {row['subject']} = on;", RELOAD),
            about=row["subject"],
        )
    table = f"{subject.schema}.{identifier(row['relation'])}"
    return Explained(
        f"autovacuum is disabled for table {table}: its dead rows are kept",
        remedy=(f"ALTER TABLE {table} RESET (autovacuum_enabled);",),
        about=row["relation"],
    )


@check("dead-rows", Severity.WARNING, "doctor_vacuum", "dead_rows", {"dead_rows": 50_000, "vacuum_age": 600.0})
def dead_rows(row: Row, subject: Subject) -> Explained:
    """Find tables whose dead rows vacuum does not remove."""
    last = "never" if row["seconds"] is None else f"{format_duration(row['seconds'])} ago"
    busy = f"; all {row['workers']} autovacuum workers are busy" if row["busy"] >= row["workers"] else ""
    table = f"{subject.schema}.{identifier(row['relation'])}"
    return Explained(
        f"table {table} has {count(row['dead'], 'dead row')} beside {count(row['live'], 'live one')}, and was last "
        f"vacuumed {last}{busy}",
        advice="first remove what old-snapshot, idle-in-transaction, replication-slot and prepared-transaction "
        "report, as vacuum cannot remove rows that these keep; if all autovacuum workers are busy, raise "
        "autovacuum_max_workers",
        remedy=(f"VACUUM (ANALYZE) {table};",),
        about=row["relation"],
    )


@check("wraparound", Severity.STOPS, "doctor_vacuum", "wraparound")
def wraparound(row: Row, _: Subject) -> Explained:
    """Find tables that must be frozen soon, or the server stops accepting writes."""
    return Explained(
        f"table {row['relation']!r} was frozen {count(row['transactions'], 'transaction')} and "
        f"{count(row['multixacts'] or 0, 'multixact')} ago; the server accepts no writes at 2 billion",
        advice="first remove what old-snapshot, idle-in-transaction, replication-slot and prepared-transaction report",
        remedy=("VACUUM (FREEZE);",),
        about=row["relation"],
    )


@check("not-analyzed", Severity.HINT, "doctor_vacuum", "statistics", {"analyzed_bytes": 64 * 1024**2}, cheap=False)
def not_analyzed(row: Row, subject: Subject) -> Explained:
    """Find tables without statistics: reports in SQL get bad plans."""
    table = f"{subject.schema}.{identifier(row['relation'])}"
    return Explained(
        f"table {table} was never analyzed, so the planner knows nothing about it; autovacuum does not analyze the "
        "parent of partitions",
        remedy=(f"ANALYZE {table};",),
        about=row["relation"],
    )


CHECKS = (autovacuum_off, dead_rows, wraparound, not_analyzed)
