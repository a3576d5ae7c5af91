"""What an operator may set, where it is looked for, and what is allowed."""

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

#: Variables that other tools set too, by setting; QWORKER_<NAME> wins over them.
COMMON_VARIABLES: Final = {"dsn": "DATABASE_URL", "processes": "MAX_CONCURRENT_JOBS", "timeout": "JOB_TIMEOUT"}

#: Settings that are no options of the command line. The DSN usually holds a password, and every user of a machine can
#: read the command lines of all processes.
NOT_ON_COMMAND_LINE: Final = frozenset({"dsn", "direct_dsn"})

#: Between SIGKILL and the last child being reaped.
KILL_MARGIN: Final = 2.0
#: What the scheduler, which stops last, may take for its obituaries and for signing the node off.
END_MARGIN: Final = 10.0

_YEAR: Final = 366 * 86_400


def _cores() -> int:
    return os.cpu_count() or 1


class WrongOption(ConfigurationError):
    """A value given on the command line is not allowed; other settings may be wrong besides."""


@dataclass(frozen=True)
class Settings:
    """Everything an operator sets; see `load` for where the values come from."""

    app: str | None = dotted("MODULE:APP", "The application to work for, as package.module:attribute.", "shop.jobs:app")
    dsn: str | None = words(
        None, "DSN",
        "Where the database is, as URL or key=value text; an App that names its own DSN wins. By default libpq's PG* "
        "variables. No option of the command line, because everybody on the machine could read the password there.",
        secret=True,
    )  # fmt: skip
    direct_dsn: str | None = words(
        None, "DSN",
        "Where the scheduler connects if the DSN leads through PgBouncer: notifications come past it only.",
        secret=True,
    )  # fmt: skip
    schema: str = schema_name("qworker", "The database schema that holds qworker's tables; must be the App's own.")
    processes: int = count(
        _cores, 1, 1024, "How many worker processes run, each with one job at a time. By default one for each core."
    )
    queues: tuple[str, ...] = names(("default",), "NAME,...", "Which queues to work off, separated by commas.")
    timeout: float | None = seconds(
        300.0, 0.001, _YEAR, "How long a job may run when its task does not say; none for no limit.", optional=True
    )
    max_attempts: int | None = count(
        None, 1, 10_000, "At most so many attempts for every task, whatever its own policy allows; none for no cap."
    )
    slow_after: float | None = seconds(
        30.0, 0.001, _YEAR, "Log a job as slow once it has run for so long, while it still runs; none for never.",
        optional=True,
    )  # fmt: skip
    burst: bool = switch(
        "Stop as soon as the queues are empty and every job has ended; exit status 1 if jobs of unknown tasks were put "
        "back."
    )
    inline: bool = switch(
        "Run one worker in the foreground, in this process, without timeouts: for breakpoints, not for production."
    )
    allow_open_connections: bool = switch(
        "Start although importing the application left connections to a database open; workers then run with these cut."
    )
    max_jobs: int | None = count(None, 1, 10**12, "Stop after so many jobs, counted over all workers; none for never.")
    max_jobs_per_worker: int | None = count(
        None, 1, 10**12, "Replace a worker process after about so many jobs (up to a tenth fewer); none for never."
    )
    max_rss: int | None = count(
        None, 16, 10**9,
        "Replace a worker process that holds more memory than this after a job (resident, in MiB); none for never.",
        metavar="MIB",
    )  # fmt: skip
    shutdown_timeout: float = seconds(
        25.0, 0, 86_400, "After SIGTERM: how long running jobs may take to end by themselves."
    )
    interrupt_timeout: float = seconds(
        5.0, 0, 3_600, "After that: how long interrupted jobs may take to clean up before their process is killed."
    )
    kill_grace: float = seconds(
        10.0, 0, 3_600, "How long a job may take to clean up after its timeout before its process is killed."
    )
    max_crashes: int = count(3, 1, 1000, "A job that has killed its worker so many times fails.")
    max_node_losses: int = count(10, 1, 1000, "A job that was running on so many nodes when they were lost fails.")
    poll_interval: float = seconds(
        1.0,
        0.05,
        1,
        "How often the node looks for work that nobody announced; less finds it sooner, at a query each time.",
    )
    max_batch: int = count(256, 1, 256, "How many jobs a worker claims at once, at most; fewer when they are long.")
    lease_timeout: float = seconds(
        30.0, 5, 3_600, "After how long without a sign of life a node is declared dead and its jobs go to others."
    )
    boot_timeout: float = seconds(60.0, 1, 3_600, "How long a worker process may take to start before it is replaced.")
    stall_timeout: float = seconds(
        30.0,
        5,
        3_600,
        "How long a worker process may spend on its own work, outside of jobs, before it is replaced. "
        "Its statements are ended after half of that, 30 s at most.",
    )
    # The ring has 32 days: today and tomorrow may be in use, and one that is over has to be left to be emptied.
    history_days: int = count(7, 1, 29, "How many days finished jobs are kept.", metavar="DAYS")
    failed_days: int = count(30, 1, 36_500, "How many days failed jobs are kept for a retry.", metavar="DAYS")
    log_level: str = choice("info", ("debug", "info", "warning", "error"), "Log events from this level upwards.")
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
        """Gather the settings, and tell for each where it comes from.

        Options (None = not given) win over QWORKER_*, these over DATABASE_URL, MAX_CONCURRENT_JOBS and JOB_TIMEOUT,
        these over [tool.qworker] in the nearest pyproject.toml that has it and that `project.find` believes, these over
        the defaults. Empty variables count as unset. Raises ConfigurationError with a line for each refused value,
        WrongOption if one of them is of the command line.
        """
        found = find(directory or Path.cwd())
        project, table = found.origin, found.table
        values: dict[str, object] = {}
        origins: dict[str, str] = {}
        problems = [
            f"{name!r} in {project} is no setting{_guess(name, list(field_specs()))}"
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
    """Return what each setting may hold, by name."""
    return {field.name: cast("FieldSpec", field.metadata["kind"]) for field in fields(Settings)}


def exit_code(error: ConfigurationError) -> int:
    """Return with which code to end: what the command line says wrongly is a matter of usage."""
    return exits.USAGE if isinstance(error, WrongOption) else exits.CONFIG


def misspelt(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables QWORKER_* that are no settings but look like one, and which."""
    settings = {name.upper(): variable(name) for name in field_specs()}
    found = {}
    for name in sorted(environ):
        prefix, _, rest = name.partition("_")
        if prefix == "QWORKER" and rest not in settings and (close := get_close_matches(rest, settings, n=1)):
            found[name] = settings[close[0]]
    return found


def option(name: str) -> str:
    """Return a setting's spelling on the command line."""
    return f"--{name.replace('_', '-')}"


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return f"QWORKER_{name.upper()}"


def _find(
    name: str, options: Mapping[str, object], environ: Mapping[str, str], table: Mapping[str, object], project: str
) -> tuple[object, str] | None:
    """Return the value that counts, and its origin; None if it is set nowhere."""
    if options.get(name) is not None:
        return options[name], option(name)
    for key in (variable(name), COMMON_VARIABLES.get(name)):
        if key is not None and environ.get(key):
            return environ[key], f"${key}"
    return (table[name], project) if name in table else None


def _guess(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
