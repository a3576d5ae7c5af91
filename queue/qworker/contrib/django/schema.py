"""The schemas of the jobs in Django's databases: bring them up to date after `migrate`, and empty them in tests."""

from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.migrations.loader import MigrationLoader
from django.utils.connection import ConnectionDoesNotExist

from qworker import migrations
from qworker.contrib.django.stores import LABEL, configurations, holds_jobs, schemas
from qworker.db.adapters import below_django
from qworker.errors import ConfigurationError
from qworker.maintenance import Maintenance


def complete(using: str, verbosity: int = 1, plan: Any = (), **_: Any) -> None:
    """Apply, after each `migrate`, those of the migrations known to Django as applied that a schema lacks.

    A schema lacks all of them if it was added to the settings or dropped, or if tests switch migrations off.
    Migrations of this run are left out: the user may have faked them.
    """
    if not holds_jobs(using):
        return
    applied = _applied(using)
    faked = {migration.name for migration, _ in plan if migration.app_label == LABEL}
    connection = below_django(connections[using])
    for migration in migrations.shipped():
        if str(migration) in applied - faked:
            for schema in schemas(using):
                if migrations.apply(connection, migration, schema) and verbosity >= 1:
                    print(f"  Applied {LABEL}.{migration} to the schema {schema!r}")  # noqa: T201 - as migrate does


def migrate_command(schema: str) -> str | None:
    """Return the command of Django that updates a schema; None if Django does not migrate it."""
    try:
        aliases = sorted({found.database for found in configurations() if found.schema == schema})
        aliases = [alias for alias in aliases if holds_jobs(alias)]
    except (ConfigurationError, ConnectionDoesNotExist):  # this is part of another message
        return None
    if not aliases:
        return None
    return "manage.py migrate" + ("" if DEFAULT_DB_ALIAS in aliases else f" --database {aliases[0]}")


def empty(alias: str) -> None:
    """Delete all jobs, keys, schedules and settings of queues in a database; nodes that run stay registered."""
    connection = below_django(connections[alias])
    for schema in schemas(alias):
        Maintenance(schema).flush(connection)


def _applied(alias: str) -> set[str]:
    """Return the names of qworker's migrations that Django has recorded, or all if it keeps no record of them."""
    loader = MigrationLoader(connections[alias], ignore_no_migrations=True)
    if LABEL not in loader.migrated_apps:  # MIGRATION_MODULES has None for it
        return {str(migration) for migration in migrations.shipped()}
    return {name for label, name in loader.applied_migrations if label == LABEL}
