"""The stacks of a running job: what its handler does right now, on whatever node it runs."""

from dataclasses import dataclass
from datetime import datetime
from time import monotonic, sleep
from typing import Any

from qworker.backoff import Backoff
from qworker.db.encoding import escape_unstorable
from qworker.db.statements import DEFAULT_SCHEMA, Database, Statements
from qworker.errors import JobNotFound, QworkerError
from qworker.job import to_datetime

#: Time to wait for the answer of the node, which polls once a second (seconds).
TIMEOUT = 10.0
#: The delay between two queries for the answer.
_POLL = Backoff(0.05, 0.5)


class StackUnavailable(QworkerError):
    """The stacks of a job cannot be read: it does not run, or its node or worker does not answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobStack:
    """The stacks of the worker that runs a job."""

    job: int
    #: The name of the node; None if it has ended since.
    node: str | None
    #: The number of the worker in its node, and its process.
    worker: str
    pid: int
    #: How long the handler has run (seconds).
    ran: float
    #: When they were read, by the clock of the database.
    read_at: datetime
    #: The stacks of all threads as faulthandler writes them: the innermost call first.
    stacks: str


class JobStacks(Statements):
    """The statements for requests; each is one commit."""

    __slots__ = ()

    def __init__(self, schema: str = DEFAULT_SCHEMA) -> None:
        super().__init__("stacks", schema)

    def read(self, database: Database, job: int, timeout: float = TIMEOUT) -> JobStack:
        """Ask the node that runs a job for its stacks, and wait up to `timeout` seconds.

        The job is not disturbed: a signal makes the worker write its stacks from C code, without its interpreter.
        Raises StackUnavailable with the reason if no answer comes, and JobNotFound.
        """
        request = self._scalar(database, "request", job=job)
        if request is None:
            state = self._scalar(database, "state", job=job)
            if state is None:
                raise JobNotFound(f"job {job} not found")
            raise StackUnavailable(f"job {job} is {state}, and only a running job has a stack")
        try:
            return self._wait(database, job, request, timeout)
        finally:
            if not database.closed:
                self._count(database, "withdraw", id=request)

    def _wait(self, database: Database, job: int, request: int, timeout: float) -> JobStack:
        until, polls = monotonic() + timeout, 0
        while True:
            for answer in self._records(database, "answer", dict[str, Any], id=request):
                return _stack(job, **answer)
            if monotonic() >= until:
                raise StackUnavailable(f"job {job}: {self._silence(database, request)} within {timeout:g} s")
            polls += 1
            sleep(min(_POLL.delay(polls), max(0.0, until - monotonic())))

    def _silence(self, database: Database, request: int) -> str:
        for name, age in self._rows(database, "silence", id=request):
            return f"node {name} has not answered (its last heartbeat was {age:.0f} s ago)"
        return "its node has ended, and has not answered"

    # The side of the node

    def store(
        self, database: Database, node: int, job: int, *, worker: str | None = None, pid: int | None = None,
        ran: float | None = None, stacks: str | None = None, problem: str | None = None,
    ) -> None:  # fmt: skip
        """Answer all requests for a job of a node."""
        text = None if stacks is None else escape_unstorable(database, stacks.replace("\0", ""))
        self._count(
            database, "store", node=node, job=job, worker=worker, pid=pid, ran=ran, stacks=text, problem=problem
        )

    def delete_old(self, database: Database) -> int:
        """Delete requests that nobody has withdrawn; return their number."""
        return self._count(database, "delete_old")


def _stack(job: int, *, problem: str | None, read_at: float, stacks: str | None, **columns: Any) -> JobStack:
    if stacks is None:
        raise StackUnavailable(f"job {job}: {problem}")
    at = to_datetime(read_at)
    assert at is not None  # noqa: S101 - the statement reads answered requests only
    return JobStack(job=job, read_at=at, stacks=stacks, **columns)
