"""Checks for what keeps dead rows from being removed."""

from qworker.doctor import Row
from qworker.durations import format_duration
from qworker.findings import Severity
from qworkerd.doctor.check import Explained, Subject, check
from qworkerd.doctor.wording import count, identifier, literal, session, size, terminate

#: WAL that a slot may retain (bytes), and transactions that a slot or standby may hold back.
SLOT_BYTES, TRANSACTIONS = 1024**3, 5_000_000


@check(
    "old-snapshot", Severity.WARNING, "doctor_horizon", "old_snapshots", {"snapshot_age": 300.0}, sessions=True
)  # fmt: skip
def old_snapshot(row: Row, _: Subject) -> Explained:
    """Find sessions whose old snapshot keeps dead rows."""
    return Explained(
        f"{session(row)} has held a snapshot for {format_duration(row['seconds'])}, so the rows of jobs that have "
        f"ended since then cannot be removed: {row['query']}",
        advice="wait for its query, or end the session",
        remedy=(terminate(row["pid"]),),
        about=f"session {row['pid']}",
    )


@check(
    "idle-in-transaction", Severity.WARNING, "doctor_horizon", "idle_in_transaction", {"idle_age": 60.0}, sessions=True
)  # fmt: skip
def idle_in_transaction(row: Row, _: Subject) -> Explained:
    """Find sessions that wait inside a transaction."""
    role = row["role"]
    limit = f"ALTER ROLE {identifier(role)} SET idle_in_transaction_session_timeout = '1min';" if role else ""
    return Explained(
        f"{session(row)} has been idle for {format_duration(row['idle_seconds'])} inside a transaction, and may hold "
        f"locks and dead rows; its last statement: {row['query']}",
        advice="commit in the application before it waits for something else"
        + (f"; to limit this: {limit}" if limit else ""),
        remedy=(terminate(row["pid"]),),
        about=f"session {row['pid']}",
    )


@check(
    "standby-feedback", Severity.WARNING, "doctor_horizon", "standby_feedback",
    {"feedback_transactions": TRANSACTIONS}, sessions=True,
)  # fmt: skip
def standby_feedback(row: Row, _: Subject) -> Explained:
    """Find standbys whose queries keep dead rows on the primary."""
    return Explained(
        f"a query on standby {row['standby']!r} has held back the removal of dead rows for "
        f"{count(row['transactions'], 'transaction')} (hot_standby_feedback)",
        advice=f"end that query on standby {row['standby']!r}, or there, run the following lines",
        remedy=("ALTER SYSTEM SET hot_standby_feedback = off;", "SELECT pg_reload_conf();"),
        about=f"standby {row['standby']}",
    )


@check(
    "replication-slot", Severity.WARNING, "doctor_horizon", "replication_slots",
    {"slot_bytes": SLOT_BYTES, "slot_transactions": TRANSACTIONS},
)  # fmt: skip
def replication_slot(row: Row, _: Subject) -> Explained:
    """Find replication slots that retain write-ahead log or dead rows."""
    facts = []
    if row["wal_bytes"] is not None:
        facts.append(f"retains {size(row['wal_bytes'])} of write-ahead log")
    if row["transactions"]:
        facts.append(f"holds back the removal of dead rows for {count(row['transactions'], 'transaction')}")
    if row["wal_status"] in ("unreserved", "lost"):
        facts.append(f"has the WAL status {row['wal_status']!r}")
    state = "is in use" if row["active"] else "is not in use"
    return Explained(
        f"{row['kind']} replication slot {row['slot']!r} {state}, and {' and '.join(facts)}",
        advice="its consumer is too slow: see its log" if row["active"] else (
            "start its consumer again; if that is gone permanently, drop the slot. max_slot_wal_keep_size limits "
            "what a slot may retain"
        ),
        remedy=() if row["active"] else (f"SELECT pg_drop_replication_slot({literal(row['slot'])});",),
        about=f"slot {row['slot']}",
    )  # fmt: skip


@check("prepared-transaction", Severity.WARNING, "doctor_horizon", "prepared_transactions", {"prepared_age": 300.0})
def prepared_transaction(row: Row, _: Subject) -> Explained:
    """Find transactions that were prepared and forgotten."""
    return Explained(
        f"transaction {row['gid']!r} of role {row['role']} was prepared {format_duration(row['seconds'])} ago and "
        "holds its locks and dead rows until it is committed or rolled back",
        advice="let its transaction manager end it; if that has forgotten it, roll it back",
        remedy=(f"ROLLBACK PREPARED {literal(row['gid'])};",),
        about=f"transaction {row['gid']}",
    )


CHECKS = (old_snapshot, idle_in_transaction, standby_feedback, replication_slot, prepared_transaction)
