"""Checks of the size of tables, the history, the write-ahead log and the disk."""

from math import inf
from os import statvfs

from qworker.doctor import Row
from qworker.durations import format_duration
from qworker.findings import Severity
from qworkerd.doctor.check import CannotCheck, Explained, Subject, check
from qworkerd.doctor.wording import count, identifier, size, terminate

MIB = 1024**2
#: The share of the disk from which on it is reported as nearly full, and the days until it will be.
NEARLY_FULL, DAYS_LEFT = 0.9, 14.0
LOCAL = (None, "127.0.0.1", "::1")
#: The oldest version with pg_stat_checkpointer.
CHECKPOINTER = 170_000


@check("table-bloat", Severity.HINT, "doctor_vacuum", "table_bloat", {"bloat_bytes": 64 * MIB}, cheap=False)
def table_bloat(row: Row, subject: Subject) -> Explained:
    """Find tables that are much larger than their rows."""
    table = f"{subject.schema}.{identifier(row['relation'])}"
    return Explained(
        f"table {table} has {size(row['bytes'])}, but its rows need about {size(row['needed'])}",
        advice="the space is reused when jobs come; to return it to the system, pause the queues and run this line, "
        "which locks the table, or use pg_repack",
        remedy=(f"VACUUM (FULL, ANALYZE) {table};",),
        about=row["relation"],
    )


@check("index-bloat", Severity.HINT, "doctor_vacuum", "index_bloat", {"index_bytes": 32 * MIB}, cheap=False)
def index_bloat(row: Row, subject: Subject) -> Explained:
    """Find indexes that are much larger than their entries."""
    index = f"{subject.schema}.{identifier(row['index'])}"
    return Explained(
        f"index {index} of table {row['relation']} has {size(row['bytes'])}, but its entries need about "
        f"{size(row['needed'])}",
        remedy=(f"REINDEX INDEX CONCURRENTLY {index};",),
        about=row["index"],
    )


@check(
    "history-retention", Severity.WARNING, "doctor_vacuum", "history_retention", {"history_days": 33.0}, sessions=True
)
def history_retention(row: Row, subject: Subject) -> Explained:
    """Find days of the history that retention could not truncate: new rows are added to the old ones."""
    partition = f"{subject.schema}.job_history_{row['day']:02d}"
    blocked = "" if row["holder"] is None else f"; session {row['holder']} reads it in a long transaction"
    return Explained(
        f"partition {partition} holds jobs that ended {row['days']:.0f} days ago and should have been "
        f"truncated{blocked}",
        advice="a live node truncates it within ten minutes unless a session reads it; this line does it now",
        remedy=(
            *(() if row["holder"] is None else (terminate(row["holder"]),)),
            f"SELECT {subject.schema}.truncate_day('job_history', {row['day']});",
        ),
        about=partition,
    )


def _checkpoints(row: Row, _: Subject) -> Explained:
    since = "" if row["seconds"] is None else f" in {format_duration(row['seconds'])}"
    return Explained(
        f"{count(row['requested'], 'checkpoint')}{since} began because max_wal_size ({row['max_wal_size']}) was "
        f"reached, and {row['timed']:,} because checkpoint_timeout had passed: frequent checkpoints slow down all "
        "writes",
        advice="raise max_wal_size further if this is found again",
        remedy=(
            f"ALTER SYSTEM SET max_wal_size = '{_doubled(row['max_wal_size'])}';",
            "SELECT pg_reload_conf();",
            *_reset_statistics(row),
        ),
    )


def _doubled(setting: str) -> str:
    digits = setting.rstrip("kMGTB")
    return f"{2 * int(digits)}{setting[len(digits) :]}"


def _reset_statistics(row: Row) -> tuple[str, ...]:
    return (f"SELECT pg_stat_reset_shared('{row.get('reset', 'bgwriter')}');",)


@check(
    "checkpoints", Severity.HINT, "doctor_vacuum", "checkpoints_17", {"requested": 50}, cheap=False, since=CHECKPOINTER
)
def checkpoints(row: Row, subject: Subject) -> Explained:
    """Find checkpoints that are forced by the volume of writes."""
    return _checkpoints(row | {"reset": "checkpointer"}, subject)


checkpoints_before_17 = check(
    "checkpoints",
    Severity.HINT,
    "doctor_vacuum",
    "checkpoints_14",
    {"requested": 50},
    cheap=False,
    until=CHECKPOINTER - 1,
)(_checkpoints)


@check("wal-size", Severity.WARNING, "doctor_vacuum", "wal_size", monitor=True, cheap=False)
def wal_size(row: Row, _: Subject) -> Explained:
    """Find a write-ahead log that is far larger than configured: a slot, a failed archive command, or slow disks."""
    return Explained(
        f"the write-ahead log has {size(row['bytes'])}, but max_wal_size is {size(row['most'])}",
        advice="see replication-slot, and whether archive_command fails: SELECT * FROM pg_stat_archiver",
    )


@check("disk-full", Severity.WARNING, "doctor_vacuum", "data_directory", monitor=True, cheap=False)
def disk_full(row: Row, _: Subject) -> Explained | None:
    """Find a disk that is nearly full or will be soon, if the server runs on this host."""
    if row["address"] not in LOCAL:
        raise CannotCheck(f"the server runs on another host ({row['address']}), whose disk cannot be seen from here")
    try:
        disk = statvfs(row["directory"])
    except OSError as error:  # another mount namespace, or no permission
        raise CannotCheck(f"{row['directory']} cannot be seen from here: {error.strerror}") from None
    used, free = 1 - disk.f_bavail / max(disk.f_blocks, 1), disk.f_bavail * disk.f_frsize
    days = free / row["growth"] if row["growth"] and row["growth"] > 0 else inf
    if used < NEARLY_FULL and days >= DAYS_LEFT:
        return None
    growth = "" if days == inf else (
        f"; in the last {format_duration(row['days'] * 86_400)} it has grown by {size(row['growth'])} a day, of which "
        f"the tables of qworker are {size(max(row['schema_growth'], 0))}, so the disk is full in "
        f"{format_duration(days * 86_400)}"
    )  # fmt: skip
    return Explained(
        f"the disk of {row['directory']} is {used:.0%} full, {size(free)} are free; this database has "
        f"{size(row['bytes'])}{growth}",
        advice="use a larger disk; if the tables of qworker grow, keep less history (--history-days, --failed-days)",
    )


CHECKS = (
    table_bloat, index_bloat, history_retention, checkpoints, checkpoints_before_17, wal_size, disk_full,
)  # fmt: skip
