"""Checks of the schema: its version, and whether all that its migrations created is there and usable."""

import re
from collections.abc import Callable
from shlex import quote

from psycopg.types.json import Jsonb

from qworker.db.errors import command
from qworker.doctor import Row
from qworker.findings import Severity
from qworker.migrations import shipped
from qworker.rights import Kind, Right, rights_of
from qworker.shipped import as_records, shipped_objects
from qworkerd.doctor.check import CannotCheck, Explained, Subject, check
from qworkerd.doctor.wording import count, identifier, listed

#: The oldest version that stores the version of a database's collation.
COLLATION_VERSIONS = 150_000


@check("schema-version", Severity.STOPS, "doctor_schema", "migrations", cheap=False)
def schema_version(row: Row, subject: Subject) -> Explained | None:
    """Find a schema that this code is not compatible with."""
    missing = [str(migration) for migration in shipped() if migration.number not in row["applied"]]
    if missing:
        return Explained(
            f"schema {subject.schema!r} is older than this code, and lacks {listed(missing)}",
            remedy=(command("migrate", subject.schema),),
        )
    level = shipped()[-1].number
    if (row["needs_code"] or 0) > level:
        return Explained(
            f"schema {subject.schema!r} needs code of level {row['needs_code']}, but this is level {level}",
            advice="install the version of qworker that has migrated it",
        )
    return None


@check("schema-difference", Severity.STOPS, "doctor_schema", "differences",
       {"shipped": lambda schema: Jsonb(as_records(schema))}, cheap=False)  # fmt: skip
def schema_difference(row: Row, subject: Subject) -> Explained:
    """Find tables, columns, constraints, indexes, triggers and storage parameters that are missing or were changed."""
    table = f"{subject.schema}.{row['relation']}"
    if row["kind"] == "table":
        return Explained(
            f"table {table} is missing: statements that name it fail",
            advice="its rows are gone unless a backup has them; make it anew, run `qworker db grant` again for each "
            "role, and the doctor for its indexes",
            remedy=(row["ddl"],), about=row["relation"],
        )  # fmt: skip
    if row["kind"] == "option":
        now = "not set" if row["found"] is None else row["found"]
        return Explained(
            f"the storage parameter {row['name']} of table {table} is {now}, not {row['value']}: dead rows are "
            "removed later",
            remedy=(row["ddl"],), about=f"{row['relation']} {row['name']}", severity=Severity.WARNING,
        )  # fmt: skip
    if row["kind"] == "trigger":
        disabled = f"ALTER TABLE {table} ENABLE TRIGGER {identifier(row['name'])};"
        return Explained(
            f"trigger {row['name']!r} of table {table} is {row['found'] or 'missing'}: what is recorded meanwhile "
            "is not found later",
            remedy=(disabled if row["found"] else row["ddl"],), about=f"{row['relation']} {row['name']}",
            severity=Severity.WARNING,
        )  # fmt: skip
    if row["found"] is not None:
        return Explained(
            f"{row['kind']} {row['name']!r} of table {table} is on ({row['found']}), not on ({row['value']}): "
            "statements that rely on it read the whole table",
            remedy=(f"DROP INDEX CONCURRENTLY {subject.schema}.{identifier(row['name'])};", row["ddl"]),
            about=f"{row['relation']} {row['name']}",
        )  # fmt: skip
    cost = {"index": "statements that rely on it read the whole table", "column": "statements that name it fail"}
    return Explained(
        f"{row['kind']} {row['name']!r} of table {table} is missing: "
        f"{cost.get(row['kind'], 'invalid rows can be stored')}",
        remedy=(row["ddl"],), about=f"{row['relation']} {row['name']}",
    )  # fmt: skip


@check("invalid-index", Severity.WARNING, "doctor_schema", "invalid_indexes")
def invalid_index(row: Row, subject: Subject) -> Explained:
    """Find indexes that a failed CREATE INDEX or REINDEX CONCURRENTLY has left."""
    index = f"{subject.schema}.{identifier(row['index'])}"
    ours = any(found.kind == "index" and found.name == row["index"] for found in shipped_objects(subject.schema))
    return Explained(
        f"index {index} of table {row['relation']} is invalid: it is not used, but each write may maintain it",
        remedy=(f"REINDEX INDEX CONCURRENTLY {index};" if ours else f"DROP INDEX CONCURRENTLY {index};",),
        about=row["index"],
    )


@check("history-ring", Severity.STOPS, "doctor_schema", "history_ring")
def history_ring(row: Row, subject: Subject) -> Explained:
    """Find days without a partition: jobs that end on such a day cannot be stored."""
    history = f"{subject.schema}.job_history"
    partition = f"{history}_{row['day']:02d}"
    values = f"FOR VALUES IN ({row['day']})"
    attach = f"ALTER TABLE {history} ATTACH PARTITION {partition} {values};"
    create = f"CREATE TABLE {partition} PARTITION OF {history} {values} WITH (vacuum_truncate = off);"
    return Explained(
        f"partition {partition} is {'detached' if row['detached'] else 'missing'}: on one day of 32, jobs cannot end",
        advice="if nodes run as a role of their own, grant it its privileges on the partition again (docs/security.md)",
        remedy=(attach if row["detached"] else create,),
        about=partition,
    )


@check("sequence-behind", Severity.STOPS, "admin", "sequences")
def sequence_behind(row: Row, subject: Subject) -> Explained | None:
    """Find sequences that would return numbers in use: after a restore, or the promotion of a logical replica."""
    if row["at"] >= row["highest"]:
        return None
    return Explained(
        f"sequence {row['sequence']} is at {row['at']}, but {row['highest']} is in use: numbers would be assigned "
        "twice",
        remedy=(command("repair", subject.schema),),
        about=row["sequence"],
    )


@check("sequence-limit", Severity.WARNING, "doctor_schema", "sequence_limits", cheap=False)
def sequence_limit(row: Row, subject: Subject) -> Explained:
    """Find sequences that are nearly exhausted: a user has changed a column to integer."""
    sequence = f"{subject.schema}.{identifier(row['sequence'])}"
    column: tuple[str, ...] = ()
    if row["relation"] is not None:
        table, name = f"{subject.schema}.{identifier(row['relation'])}", identifier(row["column"])
        column = (f"ALTER TABLE {table} ALTER COLUMN {name} TYPE bigint;",)
    return Explained(
        f"sequence {sequence} is at {row['last_value']} of {row['most']}; when it is exhausted, nothing can be "
        "enqueued",
        advice="changing the type of a column rewrites and locks its table" if column else "",
        remedy=(*column, f"ALTER SEQUENCE {sequence} AS bigint;"),
        about=row["sequence"],
    )


@check("collation", Severity.STOPS, "doctor_schema", "collation", since=COLLATION_VERSIONS, cheap=False)
def collation(row: Row, subject: Subject) -> Explained:
    """Find indexes on text that were built with another version of the collation: entries are not found."""
    database = identifier(row["database"])
    return Explained(
        f"the collation of database {row['database']!r} was of version {row['built']} when its indexes were built, "
        f"and is of version {row['now']} now: jobs may be invisible to claims, and unique keys be taken twice",
        advice="rebuild the indexes first: the other indexes of the database on text need it too",
        remedy=(
            f"REINDEX SCHEMA {subject.schema};",
            f"ALTER DATABASE {database} REFRESH COLLATION VERSION;",
        ),
    )


@check("mixed-versions", Severity.HINT, "doctor_schema", "versions", cheap=False)
def mixed_versions(row: Row, _: Subject) -> Explained:
    """Find nodes of different versions."""
    return Explained(
        f"live nodes have the versions {', '.join(row['versions'])}: {listed(row['nodes'])}",
        advice="finish the deployment: restart the nodes of the older version",
    )


@check("unheld-keys", Severity.HINT, "doctor_schema", "unheld_keys", {"keys": 1_000}, cheap=False)
def unheld_keys(row: Row, subject: Subject) -> Explained:
    """Find unique keys that were left behind."""
    keys = f"{subject.schema}.unique_key"
    held = f"SELECT FROM {subject.schema}.job AS j WHERE j.id = k.job_id AND j.holds_key"
    return Explained(
        f"{count(row['keys'], 'unique key', capped=10_000)} belong to jobs that have ended; they are taken over "
        "when they are used again, and cost space until then",
        advice="a live node deletes them every ten minutes; this line does it now",
        remedy=(f"DELETE FROM {keys} AS k WHERE k.expires_at IS NULL AND NOT EXISTS ({held});",),  # noqa: S608 - ours
    )


def _needed(part: Callable[[Right, str, str | None], str | None]) -> Callable[[str], list[str | None]]:
    """Return a parameter with one part of each privilege that a node needs."""
    needed = [(right, privilege, column) for right in rights_of(Kind.WORKER) for privilege, column in right.each()]
    return lambda _: [part(*each) for each in needed]


@check(
    "missing-privileges", Severity.STOPS, "doctor_schema", "missing_privileges",
    {
        "types": _needed(lambda right, _, __: right.type), "names": _needed(lambda right, _, __: right.name),
        "privileges": _needed(lambda _, privilege, __: privilege), "columns": _needed(lambda _, __, column: column),
    },
    sessions=True, cheap=False,
)  # fmt: skip
def missing_privileges(row: Row, subject: Subject) -> Explained:
    """Find roles of connected nodes that lack a privilege, for example after a migration that has added tables."""
    grant = command(f"grant --role {quote(row['role'])} --as worker", subject.schema)
    return Explained(
        f"role {row['role']!r}, as which a node is connected, lacks {listed(row['privileges'])}",
        remedy=(grant,),
        about=f"role {row['role']}",
    )


@check("corrupt-index", Severity.STOPS, "doctor_schema", "corruption", cheap=False, deep=True)
def corrupt_index(row: Row, subject: Subject) -> Explained | None:
    """Find indexes that lack rows or are damaged; reads all tables."""
    if "error" in row:
        named = re.search(r'index "(\w+)"', row["error"])
        index = identifier(named[1]) if named else None
        return Explained(
            f"an index is damaged, and claims may miss jobs: {row['error']}",
            advice="look for the cause: the storage, files that were copied while the server ran, or the collation",
            remedy=() if index is None else (f"REINDEX INDEX CONCURRENTLY {subject.schema}.{index};",),
            about=index or "",
        )
    if row["extension"] is None:
        raise CannotCheck("the extension amcheck is not installed: CREATE EXTENSION amcheck")
    return None


CHECKS = (
    schema_version, schema_difference, invalid_index, history_ring, sequence_behind, sequence_limit, collation,
    mixed_versions, unheld_keys, missing_privileges, corrupt_index,
)  # fmt: skip
