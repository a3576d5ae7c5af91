"""Calls the handler of a task as a worker would, without a database."""

import json
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar, overload

import psycopg

from qworker import App, Task
from qworker.claims import ClaimedJob
from qworker.context import RunningJob
from qworker.errors import InvalidOperation, Snooze
from qworker.payload import encode
from qworker.testing.attempts import Runs, refuse_in_event_loop
from qworkerd.outcomes.outcome import Completed, Session, Snoozed

A = TypeVar("A")
R = TypeVar("R")


@overload
def perform(
    task: Task[..., Coroutine[Any, Any, A]], /, *args: Any, attempt: int = 1, job_id: int = 1, **kwargs: Any
) -> A: ...
@overload
def perform(task: Task[..., R], /, *args: Any, attempt: int = 1, job_id: int = 1, **kwargs: Any) -> R: ...
def perform(task: Task[..., Any], /, *args: Any, attempt: int = 1, job_id: int = 1, **kwargs: Any) -> Any:
    """Run one attempt of a job with these arguments, and return its result; raises what the handler raises.

    Arguments and result are converted to JSON and back, as between two processes. `current_job` is set, with this
    number of attempt and id; its `connection` needs a database, see `drain`. Middleware runs, and the timeout applies
    in the main thread. Failure hooks are not called.
    """
    if not isinstance(task, Task):
        raise TypeError(
            f"perform() takes a task of a qworker App, not {task!r}; a task of Django is called by task.call(...)"
        )
    refuse_in_event_loop("perform", [task])
    row = ClaimedJob(
        job_id, 0, task.priority, task.queue, task.name, encode(task.parameters.bind(args, kwargs)), attempt, 0, False,
        datetime.now(UTC).timestamp(), None, 0,
    )  # fmt: skip
    runs = Runs(_app(task), _NoConnections(), complete=_complete, progress=lambda _job, _text: None)
    with runs.prepared():
        outcome = runs.run(task, row)
    if (raised := runs.failures.report()) is not None:
        raise raised
    if isinstance(outcome, Snoozed):
        raise Snooze(outcome.delay)
    text = outcome.result if isinstance(outcome, Completed) else None
    result: Any = None if text is None else json.loads(text)
    if result is not None and task.conversion is not None:
        result = task.conversion.load_result(result)
    return result


def _app(task: Task[..., Any]) -> App:
    app = task.app
    assert isinstance(app, App)  # noqa: S101 - it has registered the task
    return app


class _NoConnections:
    """Has no connection for `current_job.connection`."""

    lost: Session | None = None

    def open(self) -> psycopg.Connection[Any]:
        """Raise InvalidOperation."""
        raise InvalidOperation("perform() has no database for current_job.connection: enqueue the job and call drain()")

    def open_transaction(self) -> psycopg.Connection[Any]:
        """Raise InvalidOperation."""
        return self.open()

    def finish(
        self, connection: psycopg.Connection[Any], *, commit: bool, before_commit: Callable[[], bool] | None = None
    ) -> Exception | None:
        """Do nothing; no handler has a connection."""


def _complete(_job: RunningJob, _duration: float, _result: str | None) -> bool:
    """Do nothing; no job is in a database."""
    return True
