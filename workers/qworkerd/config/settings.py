"""The settings of a node: their names, defaults, limits and sources."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from math import ceil
from pathlib import Path
from typing import Final, Self, cast

from qworker.errors import ConfigurationError
from qworkerd.config.fields import FieldSpec, choice, count, dotted, names, schema_name, seconds, switch, words
from qworkerd.config.project import find
from qworkerd.process import exits

#: Variables shared with other tools, by setting; QWORKER_<NAME> takes precedence.
COMMON_VARIABLES: Final = {"dsn": "DATABASE_URL", "processes": "MAX_CONCURRENT_JOBS", "timeout": "JOB_TIMEOUT"}

#: Settings that are not command line options: the DSN usually contains a password, and every user of a machine can read
#: the command lines of all processes.
NOT_ON_COMMAND_LINE: Final = frozenset({"dsn", "direct_dsn"})

#: Time from SIGKILL until the last child is reaped (seconds).
KILL_MARGIN: Final = 2.0
#: Time for the scheduler, which stops last, to recover dead workers and to deregister the node (seconds).
END_MARGIN: Final = 10.0

_YEAR: Final = 366 * 86_400


def _cores() -> int:
    return os.cpu_count() or 1


class WrongOption(ConfigurationError):
    """A value given on the command line is invalid; other settings may be invalid too."""


@dataclass(frozen=True)
class Settings:
    """The settings of a node; see `load` for their sources."""

    app: str | None = dotted("MODULE:APP", "The application to run, as package.module:attribute.", "shop.jobs:app")
    dsn: str | None = words(
        None, "DSN",
        "The database, as a URL or key=value string; an App that names its own DSN takes precedence. By default "
        "libpq's PG* variables. Not an option of the command line, because every user of the machine could read "
        "the password there.",
        secret=True,
    )  # fmt: skip
    direct_dsn: str | None = words(
        None, "DSN",
        "The connection of the scheduler if the DSN leads through PgBouncer, which does not pass on notifications.",
        secret=True,
    )  # fmt: skip
    schema: str = schema_name("qworker", "The database schema that holds qworker's tables; must be the one of the App.")
    processes: int = count(
        _cores, 1, 1024, "How many worker processes run, each with one job at a time. By default one for each core."
    )
    queues: tuple[str, ...] = names(
        ("default",), "NAME,...", "Which queues to serve, separated by commas, the most urgent first."
    )
    timeout: float | None = seconds(
        300.0, 0.001, _YEAR, "How long a job may run if its task does not say; none disables the limit.", optional=True
    )
    max_attempts: int | None = count(
        None, 1, 10_000, "Maximum attempts for every task, even if its own policy allows more; none disables the limit."
    )
    slow_after: float | None = seconds(
        30.0, 0.001, _YEAR, "Log a job as slow once it has run this long, while it still runs; none disables it.",
        optional=True,
    )  # fmt: skip
    burst: bool = switch(
        "Stop when the queues are empty and every job has ended; exit status 1 if jobs of unknown tasks were put back."
    )
    inline: bool = switch(
        "Run one worker in the foreground, in this process, without timeouts: for breakpoints, not for production."
    )
    allow_open_connections: bool = switch(
        "Start even if importing the application left connections to a database open; they are cut in the workers."
    )
    max_jobs: int | None = count(
        None, 1, 10**12, "Stop after this many jobs, counted over all workers; none disables it."
    )
    max_jobs_per_worker: int | None = count(
        None, 1, 10**12, "Replace a worker process after about this many jobs (up to a tenth fewer); none disables it."
    )
    max_rss: int | None = count(
        None, 16, 10**9,
        "Replace a worker process that holds more memory than this after a job (resident, in MiB); none disables it.",
        metavar="MIB",
    )  # fmt: skip
    shutdown_timeout: float = seconds(25.0, 0, 86_400, "How long running jobs may take to finish after SIGTERM.")
    interrupt_timeout: float = seconds(
        5.0, 0, 3_600, "How long jobs interrupted by a shutdown may clean up before their process is killed."
    )
    kill_grace: float = seconds(
        10.0, 0, 3_600, "How long a job may clean up after its timeout before its process is killed."
    )
    max_crashes: int = count(3, 1, 1000, "Fail a job that has killed this many workers.")
    max_node_losses: int = count(10, 1, 1000, "Fail a job that was running on this many nodes when they were lost.")
    poll_interval: float = seconds(
        1.0,
        0.05,
        1,
        "How often the node polls for work that was not announced; a shorter interval finds it sooner, and each "
        "poll costs a query.",
    )
    max_batch: int = count(256, 1, 256, "How many jobs a worker claims at once, at most; fewer if they are long.")
    lease_timeout: float = seconds(
        30.0, 5, 3_600, "How long a node may show no heartbeat before it is declared dead and loses its jobs."
    )
    boot_timeout: float = seconds(60.0, 1, 3_600, "How long a worker process may take to start before it is replaced.")
    stall_timeout: float = seconds(
        30.0,
        5,
        3_600,
        "How long a worker process may spend on its own work, outside of jobs, before it is replaced. Its "
        "statements are cancelled after half of this, at most 30 s.",
    )
    # The ring has 32 days. Today and tomorrow may be in use, and one past day must remain until it is truncated.
    history_days: int = count(7, 1, 29, "How many days finished jobs are kept.", metavar="DAYS")
    failed_days: int = count(30, 1, 36_500, "How many days failed jobs are kept for a retry.", metavar="DAYS")
    log_level: str = choice("info", ("debug", "info", "warning", "error"), "Log events of this level and above.")
    log_format: str = choice(
        "auto", ("auto", "json", "console"), "How events are written; auto is console on a terminal, json elsewhere."
    )

    @property
    def stop_timeout(self) -> int:
        """Seconds a service manager must wait after SIGTERM before it kills: all phases of a shutdown, rounded up."""
        return 5 * ceil((self.shutdown_timeout + self.interrupt_timeout + KILL_MARGIN + END_MARGIN) / 5)

    @classmethod
    def load(
        cls, options: Mapping[str, object], environ: Mapping[str, str] = os.environ, directory: Path | None = None
    ) -> tuple[Self, dict[str, str]]:
        """Load the settings; return them with the origin of each.

        Options (None = not given) take precedence over QWORKER_*, these over DATABASE_URL, MAX_CONCURRENT_JOBS and
        JOB_TIMEOUT, these over [tool.qworker] in the nearest pyproject.toml that has it and that `project.find` trusts,
        these over the defaults. Empty variables count as unset. Raises ConfigurationError with a line for each rejected
        value; WrongOption if one of them is from the command line.
        """
        found = find(directory or Path.cwd())
        project, table = found.origin, found.table
        values: dict[str, object] = {}
        origins: dict[str, str] = {}
        problems = [
            f"{name!r} in {project} is not a setting{_guess(name, list(field_specs()))}"
            for name in table
            if name not in field_specs()
        ]
        for name, kind in field_specs().items():
            given = _find(name, options, environ, table, project)
            if given is None:
                origins[name] = "default"
                continue
            value, origins[name] = given
            try:
                values[name] = kind.read(value)
            except ValueError as error:
                shown = "***" if name in NOT_ON_COMMAND_LINE else repr(value)
                problems.append(f"{name} = {shown} from {origins[name]}: {error}")
        if problems:
            wrong = any(origins.get(name) == option(name) and name not in values for name in field_specs())
            raise (WrongOption if wrong else ConfigurationError)("\n".join(problems))
        return cls(**values), origins  # type: ignore[arg-type]  # read by the field's own kind


def field_specs() -> dict[str, FieldSpec]:
    """Return the specification of each setting, by name."""
    return {field.name: cast("FieldSpec", field.metadata["kind"]) for field in fields(Settings)}


def exit_code(error: ConfigurationError) -> int:
    """Return the exit code for an error: an invalid command line is a usage error."""
    return exits.USAGE if isinstance(error, WrongOption) else exits.CONFIG


def misspelt(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return QWORKER_* variables that are not settings but resemble one, with its name."""
    settings = {name.upper(): variable(name) for name in field_specs()}
    found = {}
    for name in sorted(environ):
        prefix, _, rest = name.partition("_")
        if prefix == "QWORKER" and rest not in settings and (close := get_close_matches(rest, settings, n=1)):
            found[name] = settings[close[0]]
    return found


def option(name: str) -> str:
    """Return the command line option of a setting."""
    return f"--{name.replace('_', '-')}"


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return f"QWORKER_{name.upper()}"


def _find(
    name: str, options: Mapping[str, object], environ: Mapping[str, str], table: Mapping[str, object], project: str
) -> tuple[object, str] | None:
    """Return the value that takes precedence, and its origin; None if it is not set."""
    if options.get(name) is not None:
        return options[name], option(name)
    for key in (variable(name), COMMON_VARIABLES.get(name)):
        if key is not None and environ.get(key):
            return environ[key], f"${key}"
    return (table[name], project) if name in table else None


def _guess(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
