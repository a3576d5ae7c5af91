"""System checks: what keeps jobs from being stored or run; with `--database default`, also of the tables."""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from types import FrameType
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.core.management import get_commands
from django.core.management.commands.migrate import Command as MigrateCommand
from django.db import Error as DatabaseError
from django.db import connections, router

from qworker import migrations
from qworker.contrib.django.application import DjangoApp, application
from qworker.contrib.django.configuration import Configuration, task_options
from qworker.contrib.django.discovery import discover
from qworker.contrib.django.node import serves_tasks
from qworker.contrib.django.stores import LABEL, configurations, schemas
from qworker.contrib.django.validation import Problem, of_backend, of_project
from qworker.db.adapters import below_django
from qworker.errors import ConfigurationError, SchemaError

#: The name of the app in INSTALLED_APPS.
APP = "qworker.contrib.django"
#: What to do if `migrate` does nothing.
ROUTER = (
    "A router in DATABASE_ROUTERS keeps `migrate` from it: let allow_migrate return True or None for the app_label "
    f"{LABEL!r} in this database."
)


def register() -> None:
    """Have `manage.py check` run the checks of the project; those of a backend are run by Django's tasks."""
    checks.register(check_project, "qworker")
    checks.register(check_queues, "qworker")
    checks.register(check_schema, checks.Tags.database)


def check_backend(backend: Any) -> list[Any]:
    """Check a backend in TASKS; opens no connection."""
    name = f"TASKS[{backend.alias!r}]"
    declared = (getattr(settings, "TASKS", None) or {}).get(backend.alias, {})
    if wrong := _errors(of_backend(backend.alias, {**declared, "OPTIONS": backend.options}, task_options)):
        return wrong
    try:
        configuration = backend.app.configuration
    except ConfigurationError as error:
        return [] if _project_problems() else [checks.Error(str(error), id="qworker.E001")]
    found = _database(configuration.database, name, "OPTIONS['database']")
    if not apps.is_installed(APP):
        node = f"qworker.contrib.django.node:{backend.alias}"
        hint = f"Add {APP!r} to INSTALLED_APPS, or run `qworker --app {node} db migrate`."
        found.append(
            checks.Warning(f"{name}: `manage.py migrate` does not create the tables of jobs.", hint, id="qworker.W001")
        )
    return found


def check_project(**_: Any) -> list[Any]:
    """Check QWORKER, the database of the project's own jobs, and the order of INSTALLED_APPS; opens no connection."""
    if wrong := _project_problems():
        return [*wrong, *_order()]
    try:
        default = Configuration.of("default")
        found = [] if serves_tasks("default") else _database(default.database, "QWORKER", "QWORKER['DATABASE']")
        return [*found, *_same_queues(), *_order()]
    except ConfigurationError:  # a backend reports its own OPTIONS
        return list(_order())


def check_queues(**_: Any) -> list[Any]:
    """Check that a node which is started without options serves the queue of each task."""
    if _project_problems():
        return []  # reported by the others
    try:
        discover()
    except Exception as error:  # noqa: BLE001 - modules of the project raise anything
        message = f"No node can start: importing the tasks of the project raised {type(error).__name__}: {error}"
        return [checks.Warning(message, id="qworker.W002")]
    try:
        return [message for found in configurations() for message in _unserved(application(found.alias))]
    except ConfigurationError:
        return []  # as above


def check_schema(databases: Sequence[str] | None = None, **_: Any) -> list[Any]:
    """Check the tables of jobs in these databases, unless `migrate` asks, which is about to update them."""
    if not databases or _in_migrate():
        return []
    return [
        checks.Warning(str(error), None if router.allow_migrate(alias, LABEL) else ROUTER, id="qworker.W003")
        for alias in databases
        for error in _outdated(alias)
    ]


def _project_problems() -> list[Any]:
    # A web process needs the settings of nodes no more than the code that reads them.
    from qworkerd.config.settings import field_specs

    readers = {name.upper(): spec.read for name, spec in field_specs().items()}
    return _errors(of_project(getattr(settings, "QWORKER", {}), readers))


def _errors(problems: Iterable[Problem]) -> list[Any]:
    return [checks.Error(problem.message, problem.hint, id="qworker.E001") for problem in problems]


def _database(alias: str, name: str, setting: str) -> list[Any]:
    if alias not in connections:
        known = ", ".join(sorted(map(str, connections)))
        message = f"{name} stores jobs in the database {alias!r}, which DATABASES does not have."
        return [checks.Error(message, f"Set {setting} to one of {known}.", id="qworker.E002")]
    if (vendor := connections[alias].vendor) != "postgresql":
        message = f"{name} stores jobs in the database {alias!r}, which is {vendor}."
        hint = f"Jobs need PostgreSQL: set {setting} to the alias of such a database."
        return [checks.Error(message, hint, id="qworker.E003")]
    return []


def _same_queues() -> Iterator[Any]:
    """Find backends whose nodes would run each other's tasks."""
    seen: dict[tuple[str, str, str], str] = {}
    for found in configurations():
        other = seen.setdefault((found.database, found.schema, found.queue_prefix), found.alias)
        if other != found.alias:
            message = f"TASKS[{other!r}] and TASKS[{found.alias!r}] share queues: nodes of one run tasks of the other."
            hint = "Remove OPTIONS['queue_prefix'], or set different ones, or different schemas."
            yield checks.Error(message, hint, id="qworker.E004")


def _order() -> Iterator[Any]:
    owner = get_commands().get("flush")
    if apps.is_installed(APP) and owner != APP:
        name = owner if isinstance(owner, str) else type(owner).__module__
        message = f"The app {name!r} replaces the command flush, so jobs of one TransactionTestCase remain in the next."
        yield checks.Warning(message, f"List {APP!r} before {name!r} in INSTALLED_APPS.", id="qworker.W004")


def _unserved(app: DjangoApp) -> Iterator[Any]:
    provided, _ = app.node_settings().get("queues", (["default"], ""))
    alias = app.configuration.alias
    # The variable that is set here is that of nodes of the project, not of those of other backends.
    names: Any = (os.environ.get("QWORKER_QUEUES") if alias == "default" else None) or provided
    served = {name.strip() for name in (names.split(",") if isinstance(names, str) else names)}
    queues = {task.name: task.queue for task in app.tasks.values() if not hasattr(task.handler, "task")}
    for name, queue in [*queues.items(), *_django_tasks(app)]:
        if queue not in served:
            where = "QWORKER['QUEUES']" if alias == "default" else f"TASKS[{alias!r}]['QUEUES']"
            hint = f"Add it to {where}, or silence this check if other nodes are started with --queues."
            message = f"Task {name} uses the queue {queue!r}, which nodes serve only if their options name it."
            yield checks.Warning(message, hint, id="qworker.W005")


def _django_tasks(app: DjangoApp) -> Iterator[tuple[str, str]]:
    """Yield the tasks of Django that belong to this application's backend, and their queues."""
    configuration = app.configuration
    if serves_tasks(configuration.alias):
        from qworker.contrib.django.tasks import all_loaded, path_of

        for task in all_loaded():
            if task.backend == configuration.alias:
                yield path_of(task), f"{configuration.queue_prefix}{task.queue_name}"


def _in_migrate() -> bool:
    """Return whether `migrate` runs the checks and will run the migrations of qworker. Django tells a check neither."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if isinstance(frame.f_locals.get("self"), MigrateCommand):
            options = frame.f_locals.get("options")
            if isinstance(options, dict) and "app_label" in options:
                return options["app_label"] in (None, LABEL)
        frame = frame.f_back
    return False


def _outdated(alias: str) -> Iterator[SchemaError]:
    try:
        if connections[alias].vendor != "postgresql":
            return
        names = schemas(alias)
        if names:
            connections[alias].ensure_connection()
    except (ConfigurationError, DatabaseError):  # others report them
        return
    for schema in names:
        try:
            migrations.check(below_django(connections[alias]), schema)
        except SchemaError as error:
            yield error
