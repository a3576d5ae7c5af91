"""The target of a command: the application, if one is named, and its database and schema."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg

from qworker.admin import Admin
from qworker.app import App
from qworker.db.connection import connect, resolve_dsn
from qworker.db.errors import unreachable
from qworker.db.pool import Pool
from qworker.errors import ConfigurationError
from qworker.search import Search
from qworkerd.config.loading import load_app
from qworkerd.config.project import find
from qworkerd.config.settings import Settings, option, variable
from qworkerd.log.redaction import register_secret


@dataclass(frozen=True)
class Target:
    """Settings, application and database of one command."""

    settings: Settings
    #: The origin of each setting.
    origins: Mapping[str, str]
    #: The application; None if none is named. Commands that inspect jobs do not need it.
    app: App | None
    #: The database schema: the application's, or the setting without an application.
    schema: str

    @property
    def dsn(self) -> str:
        """The DSN of the application, or the setting, or an empty string for libpq's variables."""
        dsn = resolve_dsn(self.app.dsn if self.app is not None and self.app.dsn else self.settings.dsn)
        register_secret(dsn)
        return dsn

    @cached_property
    def admin(self) -> Admin:
        """Inspects and changes jobs."""
        return self.app.admin if self.app is not None else Admin(Pool(self.dsn, self.schema))

    @cached_property
    def search(self) -> Search:
        """Searches for jobs."""
        return Search(self.admin.pool, self.admin)

    def application(self) -> App:
        """Return the application; raises ConfigurationError if none is named."""
        if self.app is None:
            raise ConfigurationError(
                f"no application is named: set {option('app')} package.module:attribute, ${variable('app')}, "
                "or app in [tool.qworker] of pyproject.toml"
                + "".join(f"; {reason}" for reason in find(Path.cwd()).ignored)
            )
        return self.app

    def close(self) -> None:
        """Close the connections that are not in use."""
        if "search" in self.__dict__:
            self.search.close()
        if self.app is not None:
            self.app.close()
        elif "admin" in self.__dict__:
            self.admin.pool.close()

    @contextmanager
    def connection(
        self, role: str, *, statement_timeout: float = 30.0, lock_timeout: float = 5.0
    ) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """Connect, and close the connection at the end.

        Raises DatabaseUnavailable if that fails, and SchemaError for a statement that needs what a missing migration
        creates.
        """
        with (
            self.connect(role, statement_timeout=statement_timeout, lock_timeout=lock_timeout) as conn,
            self.admin.pool.connection(conn),
        ):
            yield conn

    def connect(
        self, role: str, *, statement_timeout: float, lock_timeout: float
    ) -> psycopg.Connection[tuple[Any, ...]]:
        """Return a new connection, whose errors are left as they are; raises DatabaseUnavailable."""
        dsn = self.dsn
        try:
            return connect(dsn, role, statement_timeout=statement_timeout, lock_timeout=lock_timeout)
        except psycopg.OperationalError as error:
            found = unreachable(dsn, error)
            raise found from found.__cause__


def resolve(options: Mapping[str, object], *, app_optional: bool = False) -> Target:
    """Load the settings, and the application if one is named; raises ConfigurationError.

    app_optional: the command needs the database but no application. If $QWORKER_DSN is set, the application that the
    project file names is not imported, so that its jobs can be inspected even if the application is broken.
    """
    settings, origins = Settings.load(options)
    if app_optional and origins["dsn"] == f"${variable('dsn')}" and origins["app"].startswith("[tool.qworker]"):
        return Target(settings, origins, None, settings.schema)
    return load(settings, origins)


def load(settings: Settings, origins: Mapping[str, str]) -> Target:
    """Load the application named by the settings, if any, and the settings that it provides; raises ConfigurationError.

    A DSN from the project file is put into the environment, where handlers that enqueue jobs look it up.
    """
    if settings.dsn and not os.environ.get("QWORKER_DSN") and not os.environ.get("DATABASE_URL"):
        os.environ["QWORKER_DSN"] = settings.dsn
    if settings.app is None:
        return Target(settings, origins, None, settings.schema)
    app = load_app(settings.app)
    settings, origins = settings.with_provided(origins, app.node_settings())
    if origins["schema"] != "default" and app.schema != settings.schema:
        raise ConfigurationError(
            f"schema = {settings.schema!r} from {origins['schema']}, but app {settings.app!r} enqueues into "
            f"{app.schema!r}: declare App(schema={settings.schema!r}), or remove the setting"
        )
    settings = replace(settings, schema=app.schema)
    return Target(settings, origins, app, app.schema)
