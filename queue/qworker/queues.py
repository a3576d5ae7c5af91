"""The settings of queues: whether a queue is paused, since when, by whom and why."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from shlex import quote
from typing import Any

from qworker import program
from qworker.actor import MAX_ACTOR, MAX_NOTE, current_actor
from qworker.db.statements import DEFAULT_SCHEMA, Database, Statements
from qworker.job import JobState
from qworker.options import check_name, check_queue
from qworker.status import Pause, pause_of


@dataclass(frozen=True, slots=True)
class QueuePause(Pause):
    """Why no worker claims jobs of a queue."""

    queue: str


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """A queue that holds unfinished or failed jobs, that a live node serves, or that is paused."""

    name: str
    #: The number of its jobs in each state; states without jobs are left out.
    jobs: Mapping[JobState, int]
    #: Seconds since its oldest available job was enqueued; None if no job is available.
    oldest_age: float | None
    #: The names of the live nodes that serve it.
    nodes: tuple[str, ...]
    #: None if workers claim its jobs.
    paused: QueuePause | None = None
    #: False if the numbers are estimates from a sample of the table, and a queue that holds few jobs may be missing
    #: unless some of them are available or running.
    exact: bool = True


class Queues(Statements):
    """The statements for the settings of queues."""

    __slots__ = ()

    def __init__(self, schema: str = DEFAULT_SCHEMA) -> None:
        super().__init__("queues", schema)

    def pause(self, database: Database, names: Iterable[str], reason: str | None, by: str | None) -> list[str]:
        """Pause queues; return those that were not paused before. The others keep their time, author and reason."""
        checked = [check_queue("queue", name) for name in names]
        return sorted(self._column(database, "pause", names=checked, **pause_parameters(reason, by)))

    def resume(self, database: Database, names: Iterable[str]) -> list[str]:
        """Resume queues; return those that were paused."""
        return sorted(self._column(database, "resume", names=list(names), **current_actor().parameters))

    def paused(self, database: Database, names: Iterable[str] | None = None) -> list[QueuePause]:
        """Return the paused ones of these queues, or of all."""
        return self._records(database, "paused", queue_pause_of, names=None if names is None else list(names))

    def paused_names(self, database: Database, names: Iterable[str]) -> list[str]:
        """Return the names of those of these queues that are paused."""
        return [pause.queue for pause in self.paused(database, names)]

    def holding(self, database: Database, job_id: int) -> QueuePause | None:
        """Return the pause for which a job that has not started waits."""
        return next(iter(self._records(database, "holding", queue_pause_of, id=job_id)), None)

    def waiting(self, database: Database) -> list[QueuePause]:
        """Return the paused queues that hold jobs that are due."""
        return self._records(database, "waiting", queue_pause_of)


def pause_parameters(reason: str | None, by: str | None) -> dict[str, str | None]:
    """Return the parameters of a pause: who acts, by default `by`, and why."""
    actor = current_actor()
    if by:
        actor = replace(actor, name=check_name("by", by, MAX_ACTOR))
    if reason:
        actor = replace(actor, note=check_name("reason", reason, MAX_NOTE))
    return actor.parameters


def queue_pause_of(*, queue: str, **columns: Any) -> QueuePause:
    """Return the pause of a row with the columns of `pause_of`."""
    pause = pause_of(**columns)
    return QueuePause(pause.at, pause.by, pause.reason, queue)


def resume_command(queue: str) -> str:
    """Return how to resume a queue, for messages."""
    return f"resume it with `{program.command(f'queues resume {quote(queue)}')}`"
