"""Which of Django's databases hold jobs, in which schemas, and the application for what is done with them."""

from django.conf import settings
from django.db import connections, router

from qworker.contrib.django.application import DjangoApp, application
from qworker.contrib.django.configuration import Configuration
from qworker.contrib.django.node import serves_tasks
from qworker.errors import InvalidOperation

#: The label of the app.
LABEL = "qworker"


def configurations() -> list[Configuration]:
    """Return the configuration of the project, and those of all backends in TASKS that are qworker's."""
    backends = [name for name in getattr(settings, "TASKS", None) or {} if serves_tasks(name)]
    return [Configuration.of(name) for name in dict.fromkeys(["default", *backends])]


def schemas(alias: str) -> list[str]:
    """Return the names of the schemas in one of Django's databases. Most projects have one, in one database."""
    return list(dict.fromkeys(found.schema for found in configurations() if found.database == alias))


def holds_jobs(alias: str) -> bool:
    """Return whether a database holds jobs, and no router of the project keeps qworker out of it."""
    return (
        connections[alias].vendor == "postgresql" and bool(schemas(alias)) and bool(router.allow_migrate(alias, LABEL))
    )


def owner(asked: Configuration, queue: str) -> Configuration | None:
    """Return the configuration of the backend to which a queue belongs, among those that share jobs with the asked one.

    The prefix of "default" is empty and begins every queue, so the longest one decides.
    """
    others = (
        found
        for found in configurations()
        if found.alias != asked.alias
        and (found.database, found.schema) == (asked.database, asked.schema)
        and serves_tasks(found.alias)
    )
    matching = [found for found in (asked, *others) if queue.startswith(found.queue_prefix)]
    return max(matching, key=lambda found: len(found.queue_prefix), default=None)


def application_in(alias: str | None) -> DjangoApp:
    """Return the application with the jobs that the models read in a database; raises InvalidOperation."""
    default = Configuration.of("default")
    for found in configurations():
        if (found.database, found.schema) == (alias or default.database, default.schema):
            return application(found.alias)
    raise InvalidOperation(
        f"no application has its jobs in the database {alias!r}: set QWORKER['DATABASE'], or the option 'database' of "
        "a backend in TASKS"
    )
