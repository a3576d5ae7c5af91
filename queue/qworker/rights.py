"""What each kind of role may do in the schema: granted by `qworker db grant`, and checked before a node starts."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from shlex import quote
from typing import Any, LiteralString

import psycopg
from psycopg.rows import scalar_row, tuple_row
from psycopg.sql import SQL, Composed, Identifier

from qworker.actor import current_actor
from qworker.db.errors import command
from qworker.db.statements import DEFAULT_SCHEMA, load
from qworker.errors import ConfigurationError, SchemaError

#: A privilege and its columns, if it is limited to some.
_PRIVILEGE = re.compile(r"([A-Z]+)(?: \(([^)]*)\))?")


class Kind(StrEnum):
    """What a role is for."""

    #: Enqueues jobs, through functions that check every value, and reads nothing.
    PRODUCER = "producer"
    #: Runs nodes.
    WORKER = "worker"
    #: Reads everything and changes nothing.
    VIEWER = "viewer"
    #: Reads everything, enqueues, and takes every action by hand.
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Sets:
    """The privileges of each kind on one object, as GRANT takes them."""

    producer: LiteralString = ""
    worker: LiteralString = ""
    viewer: LiteralString = ""
    admin: LiteralString = ""

    def of(self, kind: Kind) -> LiteralString:
        """Return the privileges of a kind; empty if it has none."""
        found: LiteralString = getattr(self, kind)
        return found


_READ: LiteralString = "SELECT"
_ALL: LiteralString = "SELECT, INSERT, UPDATE, DELETE"
_RUN: LiteralString = "EXECUTE"
#: Actions by hand are recorded. Time and role of an entry are the server's, and no entry is changed or deleted.
_RECORD: LiteralString = "SELECT, INSERT (actor, via, address, note, request, target, jobs, action)"

#: All tables and views. The partitions of job_history and job_log are not listed: they are used through these.
TABLES: Mapping[LiteralString, Sets] = {
    "job": Sets(worker=_ALL, viewer=_READ, admin=_ALL),
    "job_history": Sets(worker="SELECT, INSERT", viewer=_READ, admin="SELECT, INSERT"),
    "jobs": Sets(worker=_READ, viewer=_READ, admin=_READ),
    "unique_key": Sets(worker=_ALL, viewer=_READ, admin=_ALL),
    "node": Sets(worker=_ALL, viewer=_READ, admin=_READ),
    "idle_node": Sets(worker="SELECT, INSERT, DELETE", viewer=_READ, admin=_READ),
    "paused_node": Sets(
        worker="SELECT, INSERT", viewer=_READ, admin="SELECT, INSERT (node, paused_by, pause_reason), DELETE"
    ),
    "queue": Sets(worker=_READ, viewer=_READ, admin="SELECT, INSERT, UPDATE"),
    "cron": Sets(worker=_ALL, viewer=_READ, admin="SELECT, UPDATE (paused_at, paused_by, pause_reason, resumed_at)"),
    "migration": Sets(worker=_READ, viewer=_READ, admin=_READ),
    "stack_request": Sets(worker=_ALL, viewer=_READ, admin="SELECT, INSERT (job, node), DELETE"),
    "job_log": Sets(worker="SELECT, INSERT", viewer=_READ, admin=_READ),
    "live_log": Sets(worker=_ALL, viewer=_READ, admin="SELECT, INSERT (job), UPDATE (requested_at), DELETE"),
    "error_event": Sets(worker=_ALL, viewer=_READ, admin=_READ),
    "error_group": Sets(worker=_ALL, viewer=_READ, admin="SELECT, UPDATE"),
    "error_stat": Sets(worker=_ALL, viewer=_READ, admin=_READ),
    "series": Sets(worker=_ALL, viewer=_READ, admin=_READ),
    "stat": Sets(worker=_ALL, viewer=_READ, admin=_READ),
    "stat_total": Sets(worker=_ALL, viewer=_READ, admin=_READ),
    "stat_queue": Sets(worker=_ALL, viewer=_READ, admin=_READ),
    "stat_flush": Sets(worker=_ALL, viewer=_READ, admin=_READ),
    "stat_source": Sets(worker=_ALL, viewer=_READ, admin=_READ),
    "deployment": Sets(worker=_ALL, viewer=_READ, admin=_READ),
    "depth": Sets(worker=_ALL, viewer=_READ, admin=_READ),
    "size": Sets(worker="SELECT, INSERT, DELETE", viewer=_READ, admin=_READ),
    "operation": Sets(worker="SELECT, UPDATE, DELETE", viewer=_READ, admin="SELECT, INSERT, UPDATE"),
    "audit": Sets(worker=_RECORD, viewer=_READ, admin=_RECORD),
    "audit_key": Sets(worker=_READ, viewer=_READ, admin=_READ),
}

#: The sequences. An INSERT that takes the default of an identity column needs no privilege on its sequence.
SEQUENCES: Mapping[LiteralString, Sets] = {
    "job_seq": Sets(worker="SELECT, USAGE", viewer=_READ, admin="SELECT, USAGE"),
    "job_id_seq": Sets(worker="SELECT, USAGE", viewer=_READ, admin="SELECT, USAGE"),
    "node_id_seq": Sets(worker=_READ, viewer=_READ, admin=_READ),
    "audit_id_seq": Sets(),
    "operation_id_seq": Sets(),
    "series_id_seq": Sets(),
    "stack_request_id_seq": Sets(),
}

#: The functions that run with the privileges of their owner. By default nobody may execute them.
FUNCTIONS: Mapping[LiteralString, Sets] = {
    "enqueue": Sets(producer=_RUN, worker=_RUN, admin=_RUN),
    "enqueue_jobs": Sets(producer=_RUN, worker=_RUN, admin=_RUN),
    "truncate_day": Sets(worker=_RUN),
    "analyze_history": Sets(worker=_RUN),
    "delete_old_audit": Sets(worker=_RUN),
    "record_audit_keys": Sets(),
}

#: The functions that run with the privileges of their caller, whom they allow nothing else. Everybody may execute them.
PUBLIC_FUNCTIONS: frozenset[LiteralString] = frozenset(
    {
        "wake", "history_day", "printable", "append_error", "without_logs", "fingerprint", "backlog", "histogram",
        "buckets", "audit_jobs", "audit_key", "audit_keys", "audit_of_bulk",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Right:
    """The privileges of a role on one object."""

    #: TABLE (also for a view), SEQUENCE, FUNCTION or SCHEMA.
    type: LiteralString
    #: The name; empty for the schema itself.
    name: LiteralString
    privileges: LiteralString

    def each(self) -> Iterator[tuple[str, str | None]]:
        """Yield each privilege, with each of its columns if it is limited to some."""
        for privilege, columns in _PRIVILEGE.findall(self.privileges):
            for column in columns.split(", ") if columns else [None]:
                yield privilege, column


def rights_of(kind: Kind) -> list[Right]:
    """Return everything that a kind of role needs, and no more."""
    found = [Right("SCHEMA", "", "USAGE")]
    for type_, objects in (("TABLE", TABLES), ("SEQUENCE", SEQUENCES), ("FUNCTION", FUNCTIONS)):
        found += [Right(type_, name, sets.of(kind)) for name, sets in objects.items() if sets.of(kind)]
    return found


def statements(role: str, kind: Kind, schema: str = DEFAULT_SCHEMA, *, revoke: bool = False) -> list[Composed]:
    """Return the GRANT or REVOKE commands that make a role one of this kind, or that undo this."""
    template = SQL(load("rights", schema)["revoke" if revoke else "grant"])
    return [
        template.format(
            privileges=SQL(right.privileges), type=SQL(right.type), role=Identifier(role),
            object=Identifier(schema, right.name) if right.name else Identifier(schema),
        )
        for right in rights_of(kind)
    ]  # fmt: skip


def grant(
    conn: psycopg.Connection[Any],
    role: str,
    kinds: Iterable[Kind],
    schema: str = DEFAULT_SCHEMA,
    *,
    revoke: bool = False,
) -> None:
    """Grant or revoke what roles of these kinds need, and record it in the audit; all in one transaction.

    Raises SchemaError unless the connection's role owns the schema, and ConfigurationError if the role does not exist.
    """
    sql, cursor = load("rights", schema), psycopg.Cursor(conn, row_factory=tuple_row)
    kinds = list(kinds)
    with conn.transaction():
        ((owner, is_owner),) = cursor.execute(sql["owner"])
        if not is_owner:
            raise SchemaError(
                f"role {conn.info.user!r} does not own schema {schema!r} of database {conn.info.dbname!r} and may not "
                f"grant privileges in it: run the command as {owner!r}, or have it run the output of --dry-run"
            )
        if cursor.execute(sql["exists"], {"role": role}).fetchone() is None:
            raise ConfigurationError(
                f"role {role!r} does not exist in this server: create it first, for example by "
                f"{SQL('CREATE ROLE {} LOGIN').format(Identifier(role)).as_string()}, and give it a password"
            )
        for kind in kinds:
            for statement in statements(role, kind, schema, revoke=revoke):
                cursor.execute(statement)
        what = {
            "role": role,
            "kinds": [kind.value for kind in kinds],
            "action": f"db.{'revoke' if revoke else 'grant'}",
        }
        cursor.execute(sql["record"], {**what, **current_actor().parameters})


def lacking(conn: psycopg.Connection[Any], kind: Kind, schema: str = DEFAULT_SCHEMA) -> list[str]:
    """Return what the connection's role would need in addition to be of this kind: "INSERT on job"."""
    needed = [(right, privilege, column) for right in rights_of(kind) for privilege, column in right.each()]
    parameters = {
        "types": [right.type for right, _, _ in needed],
        "names": [right.name for right, _, _ in needed],
        "privileges": [privilege for _, privilege, _ in needed],
        "columns": [column for _, _, column in needed],
    }
    return conn.cursor(row_factory=scalar_row).execute(load("rights", schema)["lacking"], parameters).fetchall()


def check(conn: psycopg.Connection[Any], schema: str = DEFAULT_SCHEMA) -> None:
    """Raise SchemaError, naming the missing privileges, unless the connection's role may run a node."""
    if missing := lacking(conn, Kind.WORKER, schema):
        raise SchemaError(
            f"role {conn.info.user!r} lacks privileges in schema {schema!r} of database {conn.info.dbname!r}: "
            f"{', '.join(missing)}; as the owner of the schema, run "
            f"`{command(f'grant --role {quote(conn.info.user)} --as worker', schema)}`, or run nodes as the owner"
        )
