"""Check everything a node needs to start: settings, application, database, schema."""

import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg

from qworker.app import App
from qworker.db.connection import read_only
from qworker.db.dsn import display
from qworker.db.errors import command
from qworker.errors import ConfigurationError, DatabaseUnavailable, SchemaError
from qworker.migrations import check as check_schema
from qworker.migrations import encoding_warning
from qworker.options import UNSET
from qworker.queues import Queues, resume_command
from qworker.rights import check as check_rights
from qworker.sequences import stale_sequences
from qworker.triggers import suppressing_triggers
from qworkerd.config.combinations import without_effect
from qworkerd.config.patches import refuse_patches
from qworkerd.config.project import find
from qworkerd.config.settings import (
    NOT_ON_COMMAND_LINE,
    OTHER_VARIABLES,
    Settings,
    exit_code,
    field_specs,
    misspelt,
    variable,
)
from qworkerd.config.target import Target, load
from qworkerd.inheritance.inherited import DISCONNECTED, REMEDY, SHARED, Inheritance
from qworkerd.log.redaction import mask
from qworkerd.process import exits
from qworkerd.process.descriptors import check_limit

#: The oldest supported server, in the format of psycopg's ConnectionInfo.server_version.
OLDEST_SERVER: Final = 140_000
#: Variables by which libpq finds a server when no DSN names one.
LIBPQ_SERVER_VARIABLES: Final = ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE")


@dataclass
class Report:
    """The result of a check; `problems` is empty if a node can start."""

    #: Value and origin of each setting, by name; no passwords.
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: Seconds a service manager must wait after SIGTERM.
    stop_timeout: int | None = None
    #: One entry for each task, by name.
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: One entry for each schedule, by name.
    schedules: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: The address, name and version of the database; empty if it was not reached.
    database: dict[str, Any] = field(default_factory=dict)
    #: Errors that prevent a node from working.
    problems: list[str] = field(default_factory=list)
    #: Findings that are probably not intended.
    warnings: list[str] = field(default_factory=list)

    #: The exit code of `qworker check`.
    exit_code: int = exits.OK

    @property
    def ok(self) -> bool:
        """Whether a node can start."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """Return everything, for programs."""
        return {"ok": self.ok, **asdict(self)}

    def add_error(self, error: ConfigurationError) -> None:
        """Add the problems of an invalid configuration."""
        self.problems += str(error).splitlines()
        self.exit_code = exit_code(error)


def examine(options: Mapping[str, object], environ: Mapping[str, str] = os.environ) -> Report:
    """Check every part that can be checked; a problem in one part does not hide those of others."""
    report = Report(warnings=_unknown_variables(environ))
    report.warnings += _ignored_files()
    try:
        settings, origins = Settings.load(options, environ)
    except ConfigurationError as error:
        report.add_error(error)
        return report
    _settings(report, settings, origins)
    try:
        check_limit()
    except ConfigurationError as error:
        report.add_error(error)
    inheritance = Inheritance()
    target = Target(settings, origins, None, settings.schema)
    try:
        with inheritance:
            target = load(settings, origins)
        settings = target.settings
        _settings(report, settings, target.origins)
        _application_dsn(report, target)
        _application(report, target.application(), settings)
        target.application().prepare()
        refuse_patches()
    except ConfigurationError as error:
        report.add_error(error)
    try:
        report.warnings += without_effect(settings, target.origins)
    except ConfigurationError as error:
        report.add_error(error)
    # An application that could not be loaded may name another database and another schema.
    known = target.app is not None or settings.app is None
    if known or settings.dsn or any(environ.get(name) for name in LIBPQ_SERVER_VARIABLES):
        _database(report, target, schema=known)
    else:
        report.warnings.append("the database was not checked, because the application may name it")
    _connections(report, inheritance, target)
    if report.problems and report.exit_code == exits.OK:
        report.exit_code = exits.CONFIG
    return report


def _settings(report: Report, settings: Settings, origins: Mapping[str, str]) -> None:
    report.stop_timeout = settings.stop_timeout
    for name in field_specs():
        value = getattr(settings, name)
        shown = display(value) if name in NOT_ON_COMMAND_LINE and value else value
        report.settings[name] = {"value": shown, "origin": origins[name]}


def _application_dsn(report: Report, target: Target) -> None:
    """Show the connection string of the application, which the setting and its variables do not change."""
    app = target.application()
    if app.dsn:
        try:
            value = display(target.dsn)
        except ConfigurationError:  # reported with the database
            value = ""
        report.settings["dsn"] = {"value": value or None, "origin": app.dsn_origin}


def _application(report: Report, app: App, settings: Settings) -> None:
    for name, task in sorted(app.tasks.items()):
        timeout = settings.timeout if task.timeout is UNSET else task.timeout
        report.tasks[name] = {
            "queue": task.queue, "priority": task.priority, "timeout": timeout, "attempts": task.retry.attempts,
            "on_failure": task.hook is not None, "location": task.location,
        }  # fmt: skip
        if task.queue not in settings.queues:
            report.warnings.append(f"task {name} enqueues into {task.queue!r}, a queue that this node does not serve")
    for name, schedule in sorted(app.schedules.items()):
        report.schedules[name] = {
            "task": schedule.task, "expression": schedule.expression, "timezone": schedule.timezone
        }  # fmt: skip
    if not app.tasks:
        report.warnings.append(f"app {settings.app!r} has no tasks: are the modules that declare them imported?")
    names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if names:
        report.warnings.append(
            f"importing the application started threads ({', '.join(names)}): the threads do not exist in the workers, "
            "which are forked, and locks that they hold would stay locked there"
        )


def _database(report: Report, target: Target, *, schema: bool) -> None:
    try:
        with target.connection("check") as conn:
            info = conn.info
            version = info.server_version
            report.database = {
                "host": info.host, "port": info.port, "name": info.dbname, "user": info.user, "schema": target.schema,
                "version": f"{version // 10_000}.{version % 10_000}",
            }  # fmt: skip
            if version < OLDEST_SERVER:
                report.problems.append(
                    f"the server is PostgreSQL {report.database['version']}: qworker needs 14 or newer"
                )
            if info.parameter_status("in_hot_standby") == "on":
                report.problems.append(
                    f"the server at {info.host!r} is a standby and read-only: connect to the primary"
                )
            elif why := read_only(conn):
                report.problems.append(
                    f"the server at {info.host!r} accepts no writes: {why}; turn this off for role {info.user!r} and "
                    f"database {info.dbname!r}: ALTER ROLE or DATABASE ... RESET default_transaction_read_only"
                )
            if warning := encoding_warning(conn):
                report.warnings.append(warning)
            if schema:
                check_schema(conn, target.schema)
                check_rights(conn, target.schema)
                report.problems += [
                    f"{sequence}, so numbers in use would be assigned again: run `{command('repair', target.schema)}`"
                    for sequence in stale_sequences(conn, target.schema)
                ]
                report.warnings += suppressing_triggers(conn, target.schema)
                report.warnings += [
                    f"jobs that are due wait in queue {pause.queue!r}, which is paused {pause}; "
                    f"{resume_command(pause.queue)}"
                    for pause in Queues(target.schema).waiting(conn)
                ]
    except (SchemaError, ConfigurationError, DatabaseUnavailable) as error:
        report.problems.append(str(error))
    except psycopg.Error as error:
        report.problems.append(mask(f"the database answered with an error: {error}".strip()))


def _connections(report: Report, inheritance: Inheritance, target: Target) -> None:
    try:
        dsn = target.dsn
    except ConfigurationError:  # reported with the database
        return
    for connection in inheritance.find_connections(dsn):
        if not connection.fatal or target.settings.inline:
            report.warnings.append(f"{connection}; {SHARED}")
        elif target.settings.allow_open_connections:
            report.warnings.append(f"{connection}; {DISCONNECTED}")
        else:
            report.problems.append(f"{connection}; {REMEDY}")


def _ignored_files() -> list[str]:
    try:
        return list(find(Path.cwd()).ignored)
    except ConfigurationError:  # reported with the settings
        return []


def _unknown_variables(environ: Mapping[str, str]) -> list[str]:
    known, meant = {variable(name) for name in field_specs()} | OTHER_VARIABLES, misspelt(environ)
    return [
        f"${name} is set, but is not a setting" + (f"; did you mean ${meant[name]}?" if name in meant else "")
        for name in sorted(environ)
        if name.startswith("QWORKER_") and name not in known
    ]
