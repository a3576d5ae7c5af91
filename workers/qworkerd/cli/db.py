"""Bring the database's schema to what this code needs."""

import click
import psycopg

from qworker import migrations, sequences
from qworker.errors import ConfigurationError, DatabaseUnavailable, SchemaError
from qworkerd.cli.options import options, targeted
from qworkerd.cli.tables import as_json, say, table
from qworkerd.config.target import Target
from qworkerd.process import exits

#: How long to wait for somebody else's migration, or for a lock on a table (seconds).
LOCK_TIMEOUT = 60.0


@click.group()
@options("app", "schema")
def db(**_: str | None) -> None:
    """Create, update or inspect qworker's tables.

    Works without an application if $QWORKER_DSN says where; with one, its own DSN and schema count.
    """


@db.command(short_help="Make or update the tables.")
@targeted
def migrate(to: Target) -> None:
    """Apply the migrations that are missing. Safe to run twice at once, and while older code works."""
    with to.connection("migrate", statement_timeout=0, lock_timeout=LOCK_TIMEOUT) as conn:
        _refuse_standby(conn)
        # A migration is many commands in one text, which a prepared statement cannot be.
        conn.prepare_threshold = None
        try:
            applied = migrations.migrate(conn, to.schema)
        except psycopg.errors.LockNotAvailable as error:
            raise DatabaseUnavailable(
                f"waited {LOCK_TIMEOUT:g} s for a lock that another session holds ({error.diag.message_primary}): "
                "look into pg_stat_activity for it, then run this again"
            ) from error
        for name in applied:
            say(f"applied {name}")
        if warning := migrations.encoding_warning(conn):
            say(f"warning: {warning}", err=True)
        say(f"schema {to.schema!r} in database {conn.info.dbname!r} is up to date")


@db.command(short_help="Say whether this code can work with the tables.")
@click.option("--json", "for_programs", is_flag=True, help="Print a JSON object.")
@targeted
def status(to: Target, *, for_programs: bool) -> None:
    """List the migrations, and say whether this code can work with the schema; exit status 78 if it cannot."""
    with to.connection("status") as conn:
        found = migrations.status(conn, to.schema)
        try:
            migrations.check(conn, to.schema)
            problem = None
        except SchemaError as error:
            problem = str(error)
        database = conn.info.dbname
    if for_programs:
        steps = [{"number": m.number, "name": m.name, "applied_at": m.applied_at, "shipped": m.shipped} for m in found]
        as_json(
            {"database": database, "schema": to.schema, "fit": not problem, "problem": problem, "migrations": steps}
        )
    else:
        table(("MIGRATION", "APPLIED"), [(str(m), m.applied_at) for m in found])
        say(problem or f"schema {to.schema!r} in database {database!r} is fit for this code")
    click.get_current_context().exit(exits.CONFIG if problem else exits.OK)


@db.command(short_help="Print the migrations as a script.")
@click.option("--after", type=click.IntRange(0), default=0, metavar="N", help="Only the migrations above this number.")
@targeted
def sql(to: Target, *, after: int) -> None:
    """Print the migrations as a script, for an administrator to review and run."""
    click.echo(migrations.script(to.schema, after), nl=False)


@db.command(short_help="Move sequences past the numbers in use.")
@targeted
def repair(to: Target) -> None:
    """Move the sequences that number jobs forward, past every number in use.

    After a restore, a restart of a sequence, or the promotion of a logical replica they may be behind, and numbers
    would come a second time. Nothing is changed where they are not; safe while nodes work.
    """
    with to.connection("repair", statement_timeout=0) as conn:
        _refuse_standby(conn)
        migrations.check(conn, to.schema)
        moved = sequences.repair(conn, to.schema)
    for sequence in moved:
        click.echo(f"{sequence}: moved there")
    click.echo(f"the sequences of schema {to.schema!r} are ahead of every number in use")


def _refuse_standby(conn: psycopg.Connection[tuple[object, ...]]) -> None:
    if conn.info.parameter_status("in_hot_standby") == "on":
        raise ConfigurationError(f"the server at {conn.info.host!r} is a standby: migrate on the primary")
