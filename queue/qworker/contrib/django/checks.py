"""System checks: what keeps jobs from being stored or run."""

from typing import Any

from django.core import checks
from django.db import connections

from qworker.errors import ConfigurationError


def check_backend(backend: Any) -> list[Any]:
    """Check the OPTIONS of a backend in TASKS; opens no connection."""
    name = f"TASKS[{backend.alias!r}]"
    try:
        configuration = backend.app.configuration
    except ConfigurationError as error:
        return [checks.Error(str(error), id="qworker.E001")]
    if configuration.database not in connections:
        known = ", ".join(sorted(map(str, connections)))
        return [
            checks.Error(
                f"{name} stores jobs in the database {configuration.database!r}, which DATABASES does not have.",
                hint=f"Set OPTIONS['database'] to one of {known}.",
                id="qworker.E002",
            )
        ]
    if (vendor := connections[configuration.database].vendor) != "postgresql":
        return [
            checks.Error(
                f"{name} stores jobs in the database {configuration.database!r}, which is {vendor}.",
                hint="Jobs need PostgreSQL: set OPTIONS['database'] to the alias of such a database.",
                id="qworker.E003",
            )
        ]
    return []
