"""The settings of a node: their names, defaults, limits and sources."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import ceil
from pathlib import Path
from typing import Final, Self, cast

from qworker.errors import ConfigurationError
from qworker.nearest import nearest
from qworkerd.config.fields import FieldSpec, choice, count, names, object_path, schema_name, seconds, string, switch
from qworkerd.config.project import find
from qworkerd.process import exits

#: Variables shared with other tools, by setting; QWORKER_<NAME> takes precedence.
COMMON_VARIABLES: Final = {"dsn": "DATABASE_URL", "processes": "MAX_CONCURRENT_JOBS", "timeout": "JOB_TIMEOUT"}

#: Settings that are not command line options: the DSN usually contains a password, and every user of a machine can read
#: the command lines of all processes.
NOT_ON_COMMAND_LINE: Final = frozenset({"dsn", "direct_dsn"})

#: Settings that an application cannot provide, because it is loaded by them, or determines them itself.
FIXED_BY_APPLICATION: Final = {
    "app": "the application is loaded already",
    "dsn": "the application names its database itself",
    "schema": "the application names its schema itself",
}

#: Time from SIGKILL until the last child is reaped (seconds).
KILL_MARGIN: Final = 2.0
#: Time for the scheduler, which stops last, to recover dead workers and to deregister the node (seconds).
END_MARGIN: Final = 10.0

_YEAR: Final = 366 * 86_400

#: QWORKER_* variables that are not settings: the programs of an embedded server, and the server of tests.
OTHER_VARIABLES: Final = frozenset({"QWORKER_PG_BINDIR", "QWORKER_TEST_DSN", "QWORKER_WEBHOOK"})


def _cores() -> int:
    return os.cpu_count() or 1


class WrongOption(ConfigurationError):
    """A value given on the command line is invalid; other settings may be invalid too."""


@dataclass(frozen=True)
class Settings:
    """The settings of a node; see `load` for their sources."""

    app: str | None = object_path("MODULE:APP", "The application to run, as package.module:attribute.", "shop.jobs:app")
    dsn: str | None = string(
        None, "DSN",
        "The database, as a URL or a key=value string; an App with a DSN takes precedence. The default is libpq's PG* "
        "variables. Not an option of the command line, where every user of the machine could read the password.",
        secret=True,
    )  # fmt: skip
    direct_dsn: str | None = string(
        None, "DSN",
        "The DSN of the scheduler if `dsn` leads through PgBouncer, which does not forward notifications.",
        secret=True,
    )  # fmt: skip
    schema: str = schema_name("qworker", "The database schema of qworker's tables; it must be the schema of the App.")
    processes: int = count(
        _cores, 1, 1024, "Number of worker processes; each runs one job at a time. The default is one for each core."
    )
    queues: tuple[str, ...] = names(
        ("default",), "NAME,...", "The queues to serve, separated by commas, the most urgent first."
    )
    timeout: float | None = seconds(
        300.0, 0.001, _YEAR, "Maximum run time of a job whose task sets no timeout; none disables it.", optional=True
    )
    max_attempts: int | None = count(
        None, 1, 10_000, "Maximum number of attempts of a job, even if its task allows more; none disables the limit."
    )
    slow_after: float | None = seconds(
        30.0, 0.001, _YEAR, "Log a job as slow when it has run this long and is still running; none disables it.",
        optional=True,
    )  # fmt: skip
    burst: bool = switch(
        "Stop when the queues are empty and no job runs; exit with status 1 if jobs of unknown tasks were released."
    )
    inline: bool = switch(
        "Run one worker in the foreground, in this process, without timeouts: for breakpoints, not for production."
    )
    allow_open_connections: bool = switch(
        "Start even if importing the application left database connections open; the workers cannot use them."
    )
    max_jobs: int | None = count(
        None, 1, 10**12, "Stop after this many jobs of all workers together; none disables the limit."
    )
    max_jobs_per_worker: int | None = count(
        None, 1, 10**12, "Replace a worker process after this many jobs (up to a tenth fewer); none disables the limit."
    )
    max_rss: int | None = count(
        None, 16, 10**9,
        "Replace a worker process whose resident memory exceeds this after a job, in MiB; none disables the limit.",
        metavar="MIB",
    )  # fmt: skip
    shutdown_timeout: float = seconds(25.0, 0, 86_400, "Time that running jobs have to finish after SIGTERM.")
    interrupt_timeout: float = seconds(
        5.0, 0, 3_600, "Time that jobs interrupted by a shutdown have to clean up before their process is killed."
    )
    kill_grace: float = seconds(
        10.0, 0, 3_600, "Time that a job has to clean up after its timeout before its process is killed."
    )
    max_crashes: int = count(3, 1, 1000, "Fail a job that has killed this many workers.")
    max_node_losses: int = count(10, 1, 1000, "Fail a job that was running on this many nodes when they were lost.")
    poll_interval: float = seconds(
        1.0,
        0.05,
        1,
        "Interval at which the node polls for jobs of which it was not notified; each poll is one query.",
    )
    max_batch: int = count(256, 1, 256, "Maximum number of jobs in one claim; a worker claims fewer if they are long.")
    lease_timeout: float = seconds(
        30.0, 5, 3_600, "Time without a heartbeat after which a node is declared dead and its jobs are released."
    )
    boot_timeout: float = seconds(60.0, 1, 3_600, "Time that a worker process has to start before it is replaced.")
    metrics_port: int | None = count(
        None, 1, 65_535,
        "Serve metrics for Prometheus and the probes /healthz and /readyz on this port; none disables it.",
        metavar="PORT",
    )  # fmt: skip
    metrics_host: str = string(
        "127.0.0.1", "HOST", "The address on which metrics are served; 0.0.0.0 serves all, without authentication."
    )
    metrics_labels: str = choice(
        "queue,task", ("queue,task", "queue", "task"),
        "The labels of metrics of jobs; with fewer labels, thousands of tasks or queues are added up.",
    )  # fmt: skip
    stall_timeout: float = seconds(
        30.0,
        5,
        3_600,
        "Time that a worker process may take for its own work, outside of jobs, before it is replaced. Its statements "
        "are cancelled after half of this time, at most 30 s.",
    )
    # The ring has 32 days. Today and tomorrow may be in use, and one past day must remain until it is truncated.
    history_days: int = count(7, 1, 29, "Number of days for which finished jobs are kept.", metavar="DAYS")
    failed_days: int = count(30, 1, 36_500, "Number of days for which failed jobs are kept.", metavar="DAYS")
    release: str | None = string(
        None, "VERSION", "The version of your application, for example a commit: stored with each failed attempt."
    )
    log_level: str = choice("info", ("debug", "info", "warning", "error"), "Log events of this level and above.")
    log_format: str = choice(
        "auto", ("auto", "json", "console"), "Format of the log; auto is console on a terminal and json elsewhere."
    )
    job_logs: str = choice(
        "failed", ("failed", "all", "off"),
        "Store the last log lines of a failed attempt with its error; with all, also those of other attempts.",
    )  # fmt: skip
    log_days: int = count(
        7, 1, 29, "Number of days for which the lines of other attempts are kept, with job_logs = all.", metavar="DAYS"
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
        problems = [_unknown(name, project) for name in table if name not in field_specs()]
        for name, spec in field_specs().items():
            given = _find(name, options, environ, table, project)
            if given is None:
                origins[name] = "default"
                continue
            value, origins[name] = given
            try:
                values[name] = spec.read(value)
            except ValueError as error:
                shown = "***" if name in NOT_ON_COMMAND_LINE else repr(value)
                problems.append(f"{name} = {shown} from {origins[name]}: {error}")
        if problems:
            wrong = any(origins.get(name) == option(name) and name not in values for name in field_specs())
            raise (WrongOption if wrong else ConfigurationError)("\n".join(problems))
        return cls(**values), origins  # type: ignore[arg-type]  # converted by the specification of the field

    def with_provided(
        self, origins: Mapping[str, str], provided: Mapping[str, tuple[object, str]]
    ) -> tuple[Self, dict[str, str]]:
        """Return the settings with those that the application provides, unless an option or a variable sets them.

        Raises ConfigurationError with a line for each rejected value.
        """
        values: dict[str, object] = {}
        found, problems = dict(origins), list[str]()
        for name, (value, origin) in provided.items():
            if name not in field_specs():
                problems.append(_unknown(name, origin))
            elif name in FIXED_BY_APPLICATION:
                problems.append(f"{name!r} in {origin}: {FIXED_BY_APPLICATION[name]}")
            elif not found[name].startswith(("-", "$")):
                try:
                    values[name], found[name] = field_specs()[name].read(value), origin
                except ValueError as error:
                    problems.append(f"{name} = {value!r} from {origin}: {error}")
        if problems:
            raise ConfigurationError("\n".join(problems))
        return replace(self, **values), found  # type: ignore[arg-type]  # as above


def field_specs() -> dict[str, FieldSpec]:
    """Return the specification of each setting, by name."""
    return {field.name: cast("FieldSpec", field.metadata["spec"]) for field in fields(Settings)}


def exit_code(error: ConfigurationError) -> int:
    """Return the exit code for an error: an invalid command line is a usage error."""
    return exits.USAGE if isinstance(error, WrongOption) else exits.CONFIG


def misspelt(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return QWORKER_* variables that are not settings but resemble one, with its name."""
    settings = {name.upper(): variable(name) for name in field_specs()}
    found = {}
    for name in sorted(environ):
        prefix, _, rest = name.partition("_")
        if prefix != "QWORKER" or rest in settings or name in OTHER_VARIABLES:
            continue
        if close := nearest(rest, settings):
            found[name] = settings[close]
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


def _unknown(name: str, origin: str) -> str:
    return f"{name!r} in {origin} is not a setting{_suggestion(name, list(field_specs()))}"


def _suggestion(name: str, known: list[str]) -> str:
    close = nearest(name, known)
    return f"; did you mean {close}?" if close else ""
