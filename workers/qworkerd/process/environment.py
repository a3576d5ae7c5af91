"""The environment that libpq reads at each connect, as it was when the node was started."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import Conninfo

from qworker.db.connection import resolve_dsn
from qworker.db.dsn import parse
from qworker.errors import ConfigurationError

#: Parameters that are set for each connection, or that do not select another server (the protocol version).
_EXCLUDED: Final = frozenset({
    "service", "application_name", "client_encoding", "connect_timeout", "min_protocol_version", "max_protocol_version",
})  # fmt: skip
#: These variables have no parameter that overrides them: an empty `service` is the name of a service.
SERVICE_VARIABLES: Final = ("PGSERVICE", "PGSERVICEFILE", "PGSYSCONFDIR")
#: The parameters that are file names, with the default in the home directory if there is one (libpq-connect).
_FILES: Final = {
    "passfile": ".pgpass", "sslcert": ".postgresql/postgresql.crt", "sslkey": ".postgresql/postgresql.key",
    "sslrootcert": ".postgresql/root.crt", "sslcrl": ".postgresql/root.crl", "sslcrldir": None,
}  # fmt: skip
#: The defaults of parameters that have no default in the table of libpq, and for which it rejects an empty value.
_DEFAULTS: Final = {"sslcertmode": "allow", "require_auth": "password,md5,gss,sspi,scram-sha-256,none"}


class Environment:
    """Makes qworker's connections independent of changes that handlers make to the process.

    A handler may set libpq's variables, for pg_dump for example, or change the home or working directory, and not undo
    the change. Without this class the next connection of its process could lead to another server, or fail.
    """

    def __init__(self) -> None:
        #: By variable: the parameter, the variable's value, and the default that libpq derives from it.
        self._before = {
            option.envvar.decode(): (option.keyword.decode(), os.environ.get(option.envvar.decode()), _value(option))
            for option in Conninfo.get_defaults()
            if option.envvar and option.keyword.decode() not in _EXCLUDED
        }
        self._dsn = resolve_dsn()
        self._directory = _directory()
        self._home = _home()
        if self._home and (services := Path(self._home, ".pg_service.conf")).is_file():
            os.environ.setdefault("PGSERVICEFILE", str(services))
        self._services = {name: os.environ.get(name) for name in SERVICE_VARIABLES}

    def pin(self, dsn: str) -> str:
        """Return a connection string for the same server and session as when the node was started.

        dsn: the DSN of the application or the settings. If it is empty, the variables that were set then apply.
        """
        dsn = dsn or self._dsn
        try:
            given = parse(dsn)
        except ConfigurationError:  # reported by the code that connects
            return dsn
        changed = self._changed()
        if "dbname" in changed:
            changed["dbname"] = changed["dbname"] or given.get("user") or self._default("user")
        effective = {**changed, **given}
        effective |= self._files(effective)
        with suppress(psycopg.Error):
            return make_conninfo("", **effective) if effective != given else dsn
        return dsn

    def restore(self) -> list[str]:
        """Restore the variables that no parameter overrides; return those that had changed."""
        found = [name for name, value in self._services.items() if os.environ.get(name) != value]
        for name in found:
            value = self._services[name]
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        return found

    def _changed(self) -> dict[str, Any]:
        """Return the parameters whose variables have changed since, with the values that they had."""
        # A service, or another one, may define every parameter.
        every = any(os.environ.get(name) != value for name, value in self._services.items())
        return {
            parameter: default or _DEFAULTS.get(parameter, "")
            for variable, (parameter, value, default) in self._before.items()
            if every or os.environ.get(variable) != value
        }

    def _files(self, parameters: dict[str, Any]) -> dict[str, str]:
        """Return absolute names for files that are relative to a directory that has changed since."""
        found: dict[str, str] = {}
        for parameter, name in _FILES.items():
            value = parameters.get(parameter) or self._default(parameter)
            if value:
                # A key may be in an engine ("engine:id"); `system` is the certificates of the operating system.
                relative = not Path(value).is_absolute() and ":" not in value and value != "system"
                if relative and self._directory and _directory() != self._directory:
                    found[parameter] = str(Path(self._directory, value))
            elif name and self._home and _home() != self._home:
                found[parameter] = str(Path(self._home, name))
        return found

    def _default(self, parameter: str) -> str:
        return next((default for name, _, default in self._before.values() if name == parameter), "")


def _value(option: Any) -> str:
    return (option.val or b"").decode(errors="surrogateescape")


def _directory() -> str:
    """Return the working directory; nothing if it was deleted."""
    try:
        return str(Path.cwd())
    except OSError:
        return ""


def _home() -> str:
    try:
        home = Path.home()
    except RuntimeError:  # the user has none
        return ""
    return str(home) if home.is_absolute() else ""
