"""The command `qworker`: without a subcommand it runs a node; the subcommands inspect and change jobs."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NoReturn

import click
import psycopg

from qworker.errors import ConfigurationError, DatabaseUnavailable, QworkerError
from qworkerd import __version__
from qworkerd.cli.options import SUPPLIED, given, options, refuse_before
from qworkerd.cli.subcommands import LazyGroup
from qworkerd.cli.tables import safe_echo
from qworkerd.config.settings import exit_code
from qworkerd.process import exits

#: The subcommands, each in a module of its name. It is imported on demand, so that a node does not load them.
COMMANDS = (
    "audit",
    "check",
    "completion",
    "cron",
    "db",
    "demo",
    "doctor",
    "enqueue",
    "errors",
    "init",
    "jobs",
    "operations",
    "ping",
    "queues",
    "stats",
    "tasks",
    "top",
    "web",
    "why",
    "workers",
)

#: With this variable a shell asks for completions.
COMPLETE = "_QWORKER_COMPLETE"


class Root(LazyGroup):
    """Prints errors of subcommands as one line, and translates them to exit codes."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line, or complete it for a shell."""
        if COMPLETE in os.environ:
            import_module("qworkerd.cli.completion")  # registers how bash is served
        return super().main(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command and translate its errors."""
        with exit_on_error():
            return super().invoke(ctx)


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Print an error of a command as one line, and exit with its code."""
    try:
        yield
    except ConfigurationError as error:
        _exit(error, exit_code(error))
    except psycopg.errors.InsufficientPrivilege as error:
        _exit(
            f"{_message(error)}: grant the role what it needs by `qworker db grant`, or use another one", exits.CONFIG
        )
    except psycopg.errors.ReadOnlySqlTransaction as error:
        _exit(
            f"the database is read-only ({_message(error)}): it is a standby, or default_transaction_read_only is "
            "on; connect to the primary, or try again later",
            exits.TEMPFAIL,
        )
    except (DatabaseUnavailable, psycopg.OperationalError) as error:
        _exit(error, exits.TEMPFAIL)
    except psycopg.Error as error:
        _exit(_message(error), exits.FAILURE)
    except QworkerError as error:
        _exit(error, exits.FAILURE)
    except UnicodeEncodeError as error:
        _exit(f"an argument is not valid in this locale's encoding: {error}", exits.USAGE)


def _message(error: psycopg.Error) -> str:
    """Return the server's message and hint, without the line of SQL that it quotes."""
    parts = (error.diag.message_primary, error.diag.message_hint)
    return "; ".join(part for part in parts if part) or str(error)


def _exit(error: object, code: int) -> NoReturn:
    for line in str(error).strip().splitlines():
        safe_echo(f"qworker: {line}", err=True)
    sys.exit(code)


@click.group(
    cls=Root,
    modules={name: f"qworkerd.cli.{name}" for name in COMMANDS},
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Each option can also be set by an environment variable (--max-jobs: $QWORKER_MAX_JOBS) or in "
    "[tool.qworker] of pyproject.toml (max-jobs). $QWORKER_DSN names the database. `qworker check` shows the values "
    "in effect.",
)
@click.version_option(__version__, "-V", "--version", prog_name="qworker", message="%(prog)s %(version)s")
@options()
@click.pass_context
def main(context: click.Context, /, **_: Any) -> None:
    """Run a node: a supervisor, a scheduler and worker processes, until SIGTERM or Ctrl-C; or run COMMAND."""
    if context.invoked_subcommand is None:
        from qworkerd.cli.run import run

        context.exit(run(given(context)))
    if context.invoked_subcommand != "check":
        refuse_before(context, "a setting of nodes", except_for=SUPPLIED)
