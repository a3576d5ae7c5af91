"""Run a node: read the settings, load the application, check the schema, and start the supervisor."""

import gc
from collections.abc import Mapping
from pathlib import Path

from qworker import rights
from qworker.db.connection import UNNAMED, is_unnamed
from qworker.errors import ConfigurationError, DatabaseUnavailable
from qworker.migrations import check
from qworkerd import log
from qworkerd.config.combinations import without_effect
from qworkerd.config.patches import refuse_patches
from qworkerd.config.settings import Settings, exit_code, misspelt
from qworkerd.config.target import Target, load
from qworkerd.inheritance.inherited import DISCONNECTED, REMEDY, SHARED, Inheritance
from qworkerd.process import application_metrics
from qworkerd.process.descriptors import check_limit, fill_standard


def run(options: Mapping[str, object]) -> int:
    """Run until the node is stopped, and return the exit code. Each configuration error is logged as one event."""
    fill_standard()
    # Garbage that is collected before the fork leaves holes in pages that the children would then have to copy.
    gc.disable()
    log.configure(*_log_options(options))
    try:
        settings, origins = Settings.load(options)
        log.configure(settings.log_format, settings.log_level)
        for name, meant in misspelt().items():
            log.get().warning(
                "configuration.misspelt", variable=name, meant=meant, hint="it is set, but is not a setting"
            )
        check_limit()
        if settings.metrics_port is not None and not settings.inline:
            application_metrics.prepare()
        with Inheritance() as inheritance:
            target = load(settings, origins)
        app, settings = target.application(), target.settings
        for line in without_effect(settings, target.origins):
            log.get().info("configuration.no_effect", setting=line)
        app.prepare()
        refuse_patches()
        # Again: importing the application may have changed it.
        log.configure(settings.log_format, settings.log_level)
        check_schema(target)
        report(inheritance, target)
    except ConfigurationError as error:
        if log.is_console(_log_options(options)[0]):
            raise
        for line in str(error).splitlines():
            log.get().critical(
                "configuration.invalid", error=line, directory=str(Path.cwd()), exit_code=exit_code(error)
            )
        return exit_code(error)
    if settings.inline:
        from qworkerd.inline import inline

        gc.enable()
        return inline(app, settings)
    from qworkerd.run import serve

    return serve(app, settings, inheritance)


def check_schema(target: Target) -> None:
    """Check the schema before the first fork; leaves no connection open.

    Raises SchemaError if this code cannot work with the schema. An unavailable database does not prevent the start: the
    scheduler waits for it and checks the schema again.
    """
    try:
        with target.connection("start") as conn:
            check(conn, target.schema)
            rights.check(conn, target.schema)
    except DatabaseUnavailable as error:
        hint = "the node starts; its workers wait for the database"
        if is_unnamed(target.dsn):
            hint = f"{UNNAMED}. {hint}"
        log.get().warning("database.unavailable", error=str(error), hint=hint)


def report(inheritance: Inheritance, target: Target) -> None:
    """Log the connections that the application has left open; raises ConfigurationError for those to databases.

    With --inline nothing is forked, so nothing is shared.
    """
    settings = target.settings
    found = inheritance.find_connections(target.dsn)
    refused = [connection for connection in found if connection.fatal] if not settings.inline else []
    if refused and not settings.allow_open_connections:
        raise ConfigurationError("\n".join(f"{connection}; {REMEDY}" for connection in refused))
    for connection in found:
        opening = connection.opening
        log.get().warning(
            "app.connection_open", server=connection.server, peer=connection.peer,
            opened_at=opening.location if opening else None, client=opening.client if opening else None,
            hint=DISCONNECTED if connection in refused else SHARED,
        )  # fmt: skip


def _log_options(options: Mapping[str, object]) -> tuple[str, str]:
    """Return the log format and level until the settings are loaded: the format of the command line if it is valid."""
    log_format = str(options.get("log_format") or "auto")
    return (log_format if log_format in ("auto", "json", "console") else "auto"), "info"
