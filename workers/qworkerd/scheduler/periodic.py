"""What a scheduler does every so often, and how one thing that goes wrong is kept from all others."""

from collections.abc import Callable
from time import monotonic
from typing import Any

import psycopg

from qworkerd import log

Database = psycopg.Connection[tuple[Any, ...]]
Run = Callable[[Database], object]


class Entry:
    """Something to be done every so often."""

    __slots__ = ("due", "every", "name", "run")

    def __init__(self, name: str, every: float, run: Run) -> None:
        self.name = name
        self.every = every
        self.run = run
        #: When it is due (monotonic).
        self.due = 0.0


class Periodic:
    """Does each when it is due."""

    def __init__(self, breathe: Callable[[], None]) -> None:
        self._breathe = breathe
        self._duties: list[Entry] = []
        self._log = log.get()

    def add(self, name: str, every: float, run: Run) -> None:
        """Take on a duty, to be done every so many seconds."""
        self._duties.append(Entry(name, every, run))

    def run_due(self, database: Database) -> None:
        """Do what is due."""
        for duty in self._duties:
            if monotonic() >= duty.due:
                duty.due = monotonic() + duty.every
                self.attempt(database, duty.name, duty.run)

    def attempt(self, database: Database, name: str, run: Run) -> None:
        """Do one thing; an error is logged, and only a lost connection is passed on."""
        self._breathe()
        try:
            run(database)
        except Exception as error:  # whatever it was: the lease must not end for it
            if database.closed:
                raise
            unforeseen = None if isinstance(error, psycopg.Error) else error
            self._log.warning("maintenance.error", duty=name, error=str(error).strip(), exc_info=unforeseen)
