"""Create, update and inspect the schema of the database."""

import click
import psycopg

from qworker import migrations, rights, sequences, upkeep
from qworker.errors import ConfigurationError, DatabaseUnavailable, SchemaError
from qworker.rights import Kind
from qworkerd.cli.options import options, refuse, targeted
from qworkerd.cli.tables import as_json, safe_echo, table
from qworkerd.config.target import Target
from qworkerd.process import exits

#: Seconds to wait for a concurrent migration, or for a lock on a table.
LOCK_TIMEOUT = 60.0


@click.group()
@options("app", "schema")
def db(**_: str | None) -> None:
    """Create, update or inspect qworker's tables.

    Works without an application if $QWORKER_DSN names the database. If an application is named, its DSN and schema
    are used.
    """


json_option = click.option("--json", "json_output", is_flag=True, help="Print a JSON object.")


@db.command(short_help="Create or update the tables.")
@json_option
@targeted
def migrate(target: Target, *, json_output: bool) -> None:
    """Apply the missing migrations. May run several times at once, and while nodes with older code are running."""
    with target.connect("migrate", statement_timeout=0, lock_timeout=LOCK_TIMEOUT) as conn:
        _refuse_standby(conn)
        # A migration consists of many commands in one string, which cannot be prepared.
        conn.prepare_threshold = None
        try:
            applied = migrations.migrate(conn, target.schema)
        except psycopg.errors.LockNotAvailable as error:
            raise DatabaseUnavailable(
                f"another session has held a lock for {LOCK_TIMEOUT:g} s ({error.diag.message_primary}): find it in "
                "pg_stat_activity, then run this command again"
            ) from error
        if warning := migrations.encoding_warning(conn):
            safe_echo(f"warning: {warning}", err=True)
        if json_output:
            as_json({"database": conn.info.dbname, "schema": target.schema, "applied": list(map(str, applied))})
            return
        for name in applied:
            safe_echo(f"applied {name}")
        safe_echo(f"schema {target.schema!r} in database {conn.info.dbname!r} is up to date")


@db.command(short_help="Check whether this code is compatible with the tables.")
@json_option
@targeted
def status(target: Target, *, json_output: bool) -> None:
    """List the migrations, and check whether this code is compatible with the schema; exits with status 78 if not."""
    with target.connection("status") as conn:
        found = migrations.status(conn, target.schema)
        try:
            migrations.check(conn, target.schema)
            problem = None
        except SchemaError as error:
            problem = str(error)
        database = conn.info.dbname
    if json_output:
        steps = [{"number": m.number, "name": m.name, "applied_at": m.applied_at, "shipped": m.shipped} for m in found]
        as_json({
            "database": database, "schema": target.schema, "compatible": not problem, "problem": problem,
            "migrations": steps,
        })  # fmt: skip
    else:
        table(("MIGRATION", "APPLIED"), [(str(m), m.applied_at) for m in found])
        safe_echo(problem or f"schema {target.schema!r} in database {database!r} is compatible with this code")
    click.get_current_context().exit(exits.CONFIG if problem else exits.OK)


@db.command(short_help="Print the migrations as a script.")
@click.option("--after", type=click.IntRange(0), default=0, metavar="N", help="Only the migrations above this number.")
@targeted
def sql(target: Target, *, after: int) -> None:
    """Print the migrations as a script, for an administrator to review and run."""
    click.echo(migrations.script(target.schema, after), nl=False)


@db.command(short_help="Advance sequences past the numbers in use.")
@json_option
@targeted
def repair(target: Target, *, json_output: bool) -> None:
    """Advance the sequences that number jobs past every number in use.

    After a restore, a restart of a sequence, or the promotion of a logical replica a sequence may be behind, and would
    return numbers that are in use. A sequence that is not behind is left unchanged. May run while nodes are running.
    """
    with target.connection("repair", statement_timeout=0) as conn:
        _refuse_standby(conn)
        migrations.check(conn, target.schema)
        moved = sequences.repair(conn, target.schema)
    if json_output:
        as_json({"schema": target.schema, "advanced": list(moved)})
        return
    for sequence in moved:
        click.echo(f"{sequence}: advanced")
    click.echo(f"the sequences of schema {target.schema!r} are not behind any number in use")


@db.command(short_help="Delete what is too old, drop leftovers, gather statistics.")
@click.option("--json", "json_output", is_flag=True, help="Print a JSON array.")
@targeted
def maintain(target: Target, *, json_output: bool) -> None:
    """Do at once what nodes do bit by bit, and what only the owner of the schema may do.

    Old entries of the audit, old statistics and errors, and unique keys without a job are deleted. Invalid indexes that
    a failed REINDEX CONCURRENTLY has left on the tables of qworker are dropped. The history is analyzed as a whole,
    which autovacuum never does. May be repeated at any time, while nodes are running. Exits with status 1 if a step
    could not be completed.
    """
    with target.connection("maintain", statement_timeout=0) as conn:
        _refuse_standby(conn)
        migrations.check(conn, target.schema)
        steps = upkeep.maintain(conn, target.schema)
    if json_output:
        as_json(steps)
    else:
        table(("STEP", "DONE", "PROBLEM"), [(step.name, step.done, step.problem) for step in steps], note=True)
    if any(step.problem for step in steps):
        click.get_current_context().exit(exits.FAILURE)


@db.command(short_help="Grant a role what it needs, and no more.")
@click.option("--role", required=True, metavar="NAME", help="A role of the database, which must exist.")
@click.option(
    "--as", "kinds", required=True, multiple=True, type=click.Choice([kind.value for kind in Kind]), metavar="KIND",
    help=f"What the role is for: {', '.join(Kind)}. May be given several times.",
)  # fmt: skip
@click.option("--revoke", is_flag=True, help="Revoke these privileges instead.")
@click.option("--dry-run", is_flag=True, help="Print the SQL, for an administrator to run, and change nothing.")
@json_option
@targeted
def grant(
    target: Target, *, role: str, kinds: tuple[str, ...], revoke: bool, dry_run: bool, json_output: bool
) -> None:  # fmt: skip
    """Grant a role the privileges that it needs, and no others.

    A producer enqueues jobs. A worker runs nodes. A viewer reads everything. An admin reads everything, enqueues, and
    takes every action by hand. Run this as the owner of the schema, and again after a migration that adds tables.
    Privileges are added to those that the role has. --revoke takes away all privileges of these kinds: if the role
    keeps another kind, grant that again.
    """
    wanted = [Kind(kind) for kind in dict.fromkeys(kinds)]
    if dry_run:
        refuse("json_output", why="has no effect with --dry-run, which prints SQL")
    if dry_run:
        for kind in wanted:
            for statement in rights.statements(role, kind, target.schema, revoke=revoke):
                safe_echo(f"{statement.as_string()};")
        return
    with target.connection("grant") as conn:
        _refuse_standby(conn)
        migrations.check(conn, target.schema)
        rights.grant(conn, role, wanted, target.schema, revoke=revoke)
        database = conn.info.dbname
    if json_output:
        as_json({"database": database, "schema": target.schema, "role": role, "kinds": wanted, "revoked": revoke})
        return
    done = "no longer has the privileges" if revoke else "has the privileges"
    what = " and ".join(f"{'an' if kind is Kind.ADMIN else 'a'} {kind}" for kind in wanted)
    safe_echo(f"role {role!r} {done} of {what} in schema {target.schema!r} of database {database!r}")


def _refuse_standby(conn: psycopg.Connection[tuple[object, ...]]) -> None:
    if conn.info.parameter_status("in_hot_standby") == "on":
        raise ConfigurationError(f"the server at {conn.info.host!r} is a standby: connect to the primary")
