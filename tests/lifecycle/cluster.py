"""The nodes of a test on one database, and what their handlers noted."""

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from qworker import Job, JobState
from tests.database import Database
from tests.lifecycle.application import app
from tests.lifecycle.node import Node
from tests.waiting import until

#: What takes milliseconds may take so long on a loaded machine (seconds).
SOON = 20.0
#: For nodes whose drains and retries are not what the test is about: each costs up to a second otherwise.
SOONER = ("--poll-interval", "0.1")
#: For nodes whose jobs have to start in order: a machine that stalls makes any job a long one.
PATIENT = {"QWORKER_TEST_PATIENT": "1"}


class Cluster:
    """Starts nodes, ends them all, and fails if two handlers ever ran the same job at the same time.

    Inside of the `with` the application under test enqueues into this database; such blocks may be nested.
    """

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        #: Where the handlers of all nodes take their locks and leave their notes.
        self.folder = folder
        self.nodes: list[Node] = []
        self._outer: str | None = None
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None

    def __enter__(self) -> Self:
        self._outer = os.environ.get("QWORKER_DSN")
        app.close()
        os.environ["QWORKER_DSN"] = self.database.dsn
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        app.close()
        if self._outer is None:
            del os.environ["QWORKER_DSN"]
        else:
            os.environ["QWORKER_DSN"] = self._outer
        if self._connection is not None:
            self._connection.close()
        for node in self.nodes:
            node.destroy()
        if error is None:
            overlaps = self.notes("overlap")
            assert not overlaps, f"handlers that ran at the same time: {overlaps}"

    def start(self, *options: str, dsn: str | None = None, through: Sequence[str] = (), **environment: str) -> Node:
        """Start a node with these options; its queues, processes and so on are the defaults otherwise."""
        node = Node(self.folder, dsn or self.database.dsn, *options, through=through, **environment)
        self.nodes.append(node)
        return node

    def query(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Ask the database; statements without rows return none."""
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self.database.dsn, autocommit=True)
        # Names of tables are the tests' own.
        cursor = self._connection.execute(statement.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []

    def hang_up(self) -> None:
        """Close the connection of `query`, whose server may be gone; the next one opens another."""
        if self._connection is not None:
            self._connection.close()

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Return a connection of the test's own; the end of the test closes it."""
        return self.database.connect(autocommit=False)

    def value(self, statement: str, *parameters: Any) -> Any:
        """Ask the database for one value."""
        return self.query(statement, *parameters)[0][0]

    def notes(self, what: str, **facts: object) -> list[dict[str, str]]:
        """Return the lines handlers have noted so far, with these facts."""
        wanted = {name: str(value) for name, value in facts.items()}
        return [note for note in self._notes(what) if wanted.items() <= note.items()]

    def await_notes(self, what: str, count: int = 1, timeout: float = SOON, **facts: object) -> list[dict[str, str]]:
        """Wait for so many notes."""
        until(lambda: len(self.notes(what, **facts)) >= count, timeout,
              what=lambda: f"{count} notes {what} {facts}; there are {self.notes(what)}\n{self.tail()}")  # fmt: skip
        return self.notes(what, **facts)

    def tail(self) -> str:
        """Return the ends of the nodes' logs, for messages."""
        return "\n".join(f"--- node {node.pid}\n{node.tail()}" for node in self.nodes)

    def _notes(self, what: str) -> list[dict[str, str]]:
        try:
            # A line may be seen while it is written: without its end it is none.
            lines = (self.folder / "runs").read_text().rpartition("\n")[0].splitlines()
        except FileNotFoundError:
            return []
        found = (line.split() for line in lines)
        return [dict(fact.split("=", 1) for fact in facts) for name, *facts in found if name == what]


def reached(job: Job, *states: JobState, timeout: float = SOON) -> Job:
    """Wait until a job is in one of these states, or at its end if none is named; return it as it then is."""

    def look() -> Job | None:
        now = job.refresh()
        return now if now.state in states or (now.finished and not states) else None

    found = until(look, timeout, what=lambda: f"{[*states] or 'the end'}: {job.refresh()}")
    assert found is not None
    return found
