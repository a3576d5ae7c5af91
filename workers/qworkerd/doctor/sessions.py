"""Checks of connections, locks and notifications."""

from qworker.doctor import Row
from qworker.durations import format_duration
from qworker.findings import Severity
from qworkerd.doctor.check import Explained, Subject, check
from qworkerd.doctor.wording import count, identifier, session, terminate

#: The share of the allowed sessions from which on they are reported, and from which on no more can be opened soon.
FULL, NEARLY_FULL = 0.98, 0.85


@check("connections", Severity.STOPS, "doctor_sessions", "connections")
def connections(row: Row, _: Subject) -> Explained | None:
    """Find limits of sessions that are nearly reached, or that the nodes will reach."""
    most, used, needed = row["most"], row["sessions"] or 0, row["needed"]
    if used < NEARLY_FULL * most and needed <= most:
        return None
    wanted = max(2 * most, used + needed, 20)
    where = {"server": "the server", "role": f"role {row['name']!r}", "database": f"database {row['name']!r}"}
    remedy = {
        "server": f"ALTER SYSTEM SET max_connections = {wanted};",
        "role": f"ALTER ROLE {identifier(row['name'])} CONNECTION LIMIT {wanted};",
        "database": f"ALTER DATABASE {identifier(row['name'])} CONNECTION LIMIT {wanted};",
    }
    advice = "restart the server after this line, or reduce the processes of the nodes or the pools of applications"
    return Explained(
        f"{where[row['scope']]} allows {count(most, 'session')} for ordinary roles, {used} are open, and the live "
        f"nodes need up to {needed}",
        advice=advice if row["scope"] == "server" else "",
        remedy=(remedy[row["scope"]],),
        about=row["scope"],
        severity=None if used >= FULL * most else Severity.WARNING,
    )


@check("pooler", Severity.WARNING, "doctor_sessions", "backend", cheap=False)
def pooler(_: Row, subject: Subject) -> Explained | None:
    """Find a pooler without a direct connection beside it: such nodes get no notifications."""
    if not subject.pooled or subject.direct is not False:
        return None
    return Explained(
        "the connection leads through a pooler, and no direct connection is set: idle nodes learn of new jobs "
        "with their next poll, up to a second later, instead of by a notification",
        advice="set the address of the server itself for the schedulers of the nodes",
        remedy=("export QWORKER_DIRECT_DSN=postgresql://USER@SERVER:5432/DATABASE",),
    )


@check(
    "notification-queue", Severity.WARNING, "doctor_sessions", "notification_queue", {"notification_share": 0.1},
    sessions=True,
)  # fmt: skip
def notification_queue(row: Row, _: Subject) -> Explained:
    """Find a queue of notifications that fills: when it is full, every commit with a NOTIFY fails."""
    open_for = "" if row["pid"] is None else (
        f"; the oldest transaction is that of {session(row)}, open for {format_duration(row['seconds'])}"
    )  # fmt: skip
    return Explained(
        f"the notification queue of the server is {row['share']:.0%} full, because a session that listens is in a long "
        f"transaction{open_for}; when it is full, enqueueing fails while a node is idle",
        advice="end the transaction of the session that listens",
        remedy=() if row["pid"] is None else (terminate(row["pid"]),),
    )


@check("lock-wait", Severity.WARNING, "doctor_sessions", "lock_waits", {"lock_age": 5.0}, sessions=True)
def lock_wait(row: Row, _: Subject) -> Explained:
    """Find sessions that have waited for a lock on our tables for long."""
    if row["blocker"] == 0:
        return Explained(
            f"session {row['pid']} has waited {format_duration(row['seconds'])} for a lock on {row['relation']} that a "
            "prepared transaction holds",
            advice="see prepared-transaction: commit the transaction or roll it back",
            about=f"session {row['pid']}",
        )
    blocker = session({**row, "pid": row["blocker"]})
    open_for = (
        "" if row["blocker_seconds"] is None else f", in a transaction for {format_duration(row['blocker_seconds'])}"
    )
    return Explained(
        f"session {row['pid']} has waited {format_duration(row['seconds'])} for a lock on {row['relation']} that "
        f"{blocker} holds{open_for}: {row['query']}",
        advice="let the holder of the lock commit, or end its session",
        remedy=(terminate(row["blocker"]),),
        about=f"session {row['blocker']}",
    )


CHECKS = (connections, pooler, notification_queue, lock_wait)
