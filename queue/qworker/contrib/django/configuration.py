"""The settings of qworker in Django's settings: QWORKER, and the OPTIONS of the backends in TASKS."""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

from qworker.contrib.django.validation import APPLICATION, of_options, of_project
from qworker.db.statements import DEFAULT_SCHEMA
from qworker.errors import ConfigurationError
from qworker.options import UNSET, Options
from qworker.retry import Retry

#: What messages call the setting.
ORIGIN = "QWORKER in Django's settings"

#: Django's own backends attempt a task once.
ONCE = Options(retry=1)


@dataclass(frozen=True)
class Configuration:
    """Where the jobs of one backend are, and the defaults of its tasks."""

    #: The alias of the backend in TASKS.
    alias: str
    #: The alias of the database in DATABASES.
    database: str = "default"
    schema: str = DEFAULT_SCHEMA
    #: What precedes the names of the backend's queues; nodes of other backends do not serve them.
    queue_prefix: str = ""
    #: The options of tasks that have none of their own.
    defaults: Options = ONCE

    @classmethod
    def of(cls, alias: str, options: dict[str, Any] | None = None) -> "Configuration":
        """Return the configuration of a backend; raises ConfigurationError."""
        ours = project()
        options = backend_options(alias) if options is None else options
        for problem in of_options(alias, options, task_options):
            raise ConfigurationError(str(problem))
        try:
            defaults = task_options(
                timeout=options.get("timeout", UNSET),
                max_attempts=options.get("max_attempts", 1),
                backoff=options.get("backoff", UNSET),
            )
        except (TypeError, ValueError) as error:  # each is right, but not both together
            raise ConfigurationError(f"TASKS[{alias!r}]['OPTIONS']: {error}") from None
        return cls(
            alias,
            options.get("database", ours.get("DATABASE", "default")),
            options.get("schema", ours.get("SCHEMA", DEFAULT_SCHEMA)),
            options.get("queue_prefix", "" if alias == "default" else f"{alias}:"),
            defaults,
        )


def project() -> dict[str, Any]:
    """Return the setting QWORKER; raises ConfigurationError if it does not say where jobs are.

    Settings of nodes are validated by the system checks, and by a node when it starts.
    """
    found = getattr(settings, "QWORKER", {})
    for problem in of_project(found):
        raise ConfigurationError(str(problem))
    return found


def node_settings(configuration: Configuration) -> dict[str, tuple[object, str]]:
    """Return the settings of the nodes of one backend, with their origins.

    A node serves the queues of its backend. Those of the backend "default" may be listed in QWORKER instead, together
    with the queues of the project's own tasks.
    """
    ours, alias = project(), configuration.alias
    if wrong := [name for name in ours if not str(name).isupper()]:
        name = wrong[0]
        raise ConfigurationError(
            f"{ORIGIN} has the key {name!r}: its keys are in upper case, as in {str(name).upper()!r}"
        )
    found: dict[str, tuple[object, str]] = {
        name.lower(): (value, ORIGIN) for name, value in ours.items() if name not in APPLICATION
    }
    declared = (getattr(settings, "TASKS", None) or {}).get(alias)
    if declared is not None and (alias != "default" or "queues" not in found):
        queues = [f"{configuration.queue_prefix}{name}" for name in declared.get("QUEUES") or ["default"]]
        found["queues"] = (queues, f"TASKS[{alias!r}] in Django's settings")
    return found


def backend_options(alias: str) -> dict[str, Any]:
    """Return the OPTIONS of a backend in TASKS; none if the backend is not qworker's."""
    declared = (getattr(settings, "TASKS", None) or {}).get(alias, {})
    found: dict[str, Any] = declared.get("OPTIONS", {}) if _is_ours(str(declared.get("BACKEND"))) else {}
    return found


def _is_ours(backend: str) -> bool:
    if backend.startswith("qworker.contrib.django."):
        return True
    try:
        from qworker.contrib.django.backend import Backend

        found = import_string(backend)
    except Exception:  # noqa: BLE001 - a backend of others that cannot be imported now, whatever it raises
        return False
    return isinstance(found, type) and issubclass(found, Backend)


def task_options(*, timeout: Any = UNSET, max_attempts: Any = UNSET, backoff: Any = UNSET, **others: Any) -> Options:
    """Return the options of a task in the words of Django; raises TypeError or ValueError."""
    retry: Any = UNSET
    if isinstance(max_attempts, Retry):
        retry = max_attempts
    elif max_attempts is not UNSET:
        retry = Retry.of(max_attempts)
    if backoff is not UNSET:
        seconds = backoff.total_seconds() if isinstance(backoff, timedelta) else backoff
        # A constant that applies to tasks that say how often they are attempted, and to others by default twice.
        retry = replace(retry if retry is not UNSET else Retry(), backoff=seconds)
    return Options.of({"timeout": timeout, "retry": retry, **others})
