"""`manage.py qworker`: the commands of `qworker`, for the application of the project."""

import argparse
import os
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser, SystemCheckError
from django.db import connections

#: The options of Django's commands that may stand anywhere in the line; Django has obeyed them already.
_DJANGO = ("--settings", "--pythonpath")


class Command(BaseCommand):
    """Runs nodes (`run`, `drain`), and inspects and changes jobs."""

    help = "Run a node for this project, and inspect and change its jobs."
    # A node is started without a database, and the checks of `run` need none.
    requires_system_checks = ()

    def run_from_argv(self, argv: list[str]) -> None:
        """Run the command line by click, which has the commands of `qworker` and their help."""
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        for name in _DJANGO:
            parser.add_argument(name)
        parser.add_argument("--skip-checks", action="store_true")
        known, rest = parser.parse_known_args(argv[2:])
        self._run(rest, program=" ".join(argv[:2]), skip_checks=known.skip_checks)

    def print_help(self, prog_name: str, subcommand: str) -> None:
        """Print the help of click, for `manage.py help qworker`."""
        self._run(["--help"], program=f"{prog_name} {subcommand}", skip_checks=True)

    def add_arguments(self, parser: CommandParser) -> None:
        """Take everything; `call_command("qworker", "jobs", "list")` gets here."""
        parser.add_argument("words", nargs=argparse.REMAINDER)

    def handle(self, *_: Any, **options: Any) -> None:
        """Run a command for `call_command`, which runs no system checks."""
        self._run(list(map(str, options["words"])), program="manage.py qworker", skip_checks=True)

    def _run(self, words: list[str], *, program: str, skip_checks: bool) -> None:
        from qworkerd.cli.django import run

        run(words, program=program, check=(lambda: None) if skip_checks else self._check)

    def _check(self) -> None:
        """Run the system checks; exits with the status of a node whose configuration is invalid."""
        try:
            self.check()
        except SystemCheckError as error:
            self.stderr.write(str(error), lambda text: text)
            sys.exit(os.EX_CONFIG)
        finally:
            connections.close_all()  # nothing may be open when a node forks
