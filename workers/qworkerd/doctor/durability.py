"""Checks of settings: those by which work can be lost, and those that break sessions of workers and producers."""

from qworker.doctor import Row
from qworker.findings import Severity
from qworkerd.doctor.check import Explained, Subject, check
from qworkerd.doctor.wording import identifier, literal

#: Settings that end sessions or transactions; what happens then.
ENDING = {
    "idle_session_timeout": "idle sessions of nodes and pools are ended and opened again",
    "transaction_timeout": "longer transactional jobs are ended",
}
#: The values of a setting of time that disable it.
DISABLED = ("0", "0s", "0ms", "0min")


@check("synchronous-standby", Severity.STOPS, "doctor_sessions", "synchronous_standbys", sessions=True)
def synchronous_standby(row: Row, subject: Subject) -> Explained | None:
    """Find commits that wait for a standby that is not connected."""
    if not subject.server.reads_sessions:  # sync_state of pg_stat_replication is NULL then
        return None
    return Explained(
        f"commits wait for a synchronous standby ({row['names']}), but none is connected; {row['waiting']} "
        "sessions wait",
        advice="start the standby; to continue without it, and without its protection, run the following lines",
        remedy=("ALTER SYSTEM SET synchronous_standby_names = '';", "SELECT pg_reload_conf();"),
    )


@check("server-durability", Severity.WARNING, "doctor_sessions", "server_settings")
def server_durability(row: Row, _: Subject) -> Explained | None:
    """Find a server that loses or damages data in a crash."""
    if row["value"] != "off":
        return None
    return Explained(
        f"{row['name']} is off: a crash of the machine can damage the database, not only lose its last commits",
        remedy=(f"ALTER SYSTEM SET {row['name']} = on;", "SELECT pg_reload_conf();"),
        about=row["name"],
    )


@check("asynchronous-commit", Severity.WARNING, "doctor_sessions", "settings", cheap=False)
def asynchronous_commit(row: Row, _: Subject) -> Explained | None:
    """Find commits that a crash of the server may undo."""
    if row["name"] != "synchronous_commit" or row["value"] not in ("off", "false", "0"):
        return None
    return Explained(
        f"synchronous_commit is off {_where(row)}: a crash of the server undoes the last commits, and so jobs that "
        "were enqueued; qworker's own sessions set it to on",
        remedy=_reset(row),
        about=_where(row),
    )


@check("read-only", Severity.STOPS, "doctor_sessions", "settings")
def read_only(row: Row, subject: Subject) -> Explained | None:
    """Find a standby, and sessions that begin as read-only."""
    if row["name"] != "default_transaction_read_only":
        return None
    if subject.server.standby:
        return Explained(
            "the server is a standby, which accepts no writes: no job can be enqueued or run through this connection",
            advice="name all servers in the DSN, and let libpq find the primary: host=a,b "
            "target_session_attrs=read-write",
            about="standby",
        )
    if row["value"] not in ("on", "true", "1", "yes"):
        return None
    return Explained(
        f"default_transaction_read_only is on {_where(row)}: sessions that begin now cannot enqueue or run jobs",
        remedy=("SET default_transaction_read_only = off;", *_reset(row)),
        about=_where(row),
    )


@check("session-settings", Severity.WARNING, "doctor_sessions", "settings", cheap=False)
def session_settings(row: Row, _: Subject) -> Explained | None:
    """Find settings that make statements of callers fail, or end sessions."""
    name, value = row["name"], row["value"]
    if name == "default_transaction_isolation" and value not in ("read committed", "read uncommitted"):
        return Explained(
            f"default_transaction_isolation is {value!r} {_where(row)}: a statement of a caller's transaction fails "
            "with serialization errors if another session has changed the same job",
            remedy=_reset(row),
            about=f"{name} {_where(row)}",
        )
    if name in ENDING and value not in DISABLED:
        return Explained(
            f"{name} is {value} {_where(row)}: {ENDING[name]}", remedy=_reset(row), about=f"{name} {_where(row)}"
        )
    return None


def _where(row: Row) -> str:
    parts = [f"{kind} {row[kind]!r}" for kind in ("role", "database") if row[kind]]
    return f"for {' in '.join(parts)}" if parts else "for the server"


def _reset(row: Row) -> tuple[str, ...]:
    """Return the SQL that removes a setting where it was made."""
    name = row["name"]
    if row["role"]:
        where = f" IN DATABASE {identifier(row['database'])}" if row["database"] else ""
        return (f"ALTER ROLE {identifier(row['role'])}{where} RESET {name};",)
    if row["database"]:
        return (f"ALTER DATABASE {identifier(row['database'])} RESET {name};",)
    default = {
        "synchronous_commit": "on", "default_transaction_read_only": "off",
        "default_transaction_isolation": "read committed",
    }.get(name, "0")  # fmt: skip
    return (f"ALTER SYSTEM SET {name} = {literal(default)};", "SELECT pg_reload_conf();")


CHECKS = (
    synchronous_standby, server_durability, asynchronous_commit, read_only, session_settings,
)  # fmt: skip
