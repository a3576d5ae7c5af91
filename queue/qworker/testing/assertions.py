"""What an application has enqueued and no worker has run."""

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from inspect import Parameter, signature
from typing import Any, TypeVar

from qworker import App, Job, Task, clock
from qworker.enqueue import Enqueuer
from qworker.errors import InvalidPayload
from qworker.job import WAITING, JobState
from qworker.options import check_datetime
from qworker.payload import POSITIONAL, encode
from qworker.testing.mock import MockQueue

R = TypeVar("R")

#: How much earlier a job may start than `after` says: its delay counts from a reading of the clock before (seconds).
_TOLERANCE = timedelta(seconds=1)
_NOT_BY_NAME = Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD, Parameter.KEYWORD_ONLY
#: Number of jobs that a failed assertion lists.
_LISTED = 20


def enqueued(
    task: Task[..., R],
    args: Mapping[str, Any] | None = None,
    *,
    queue: str | None = None,
    priority: int | None = None,
    tag: str | None = None,
    after: datetime | timedelta | None = None,
) -> list[Job[R]]:
    """Return the jobs of a task that wait to be run, oldest first.

    args: some of the arguments, by name; nested dicts may be partial, too. Those of a typed task may be given as the
    values that its handler takes, or as the JSON values that are stored. after: only jobs that do not start before
    this time, or before this delay after they were enqueued. Jobs are looked up in the test's transaction, see `drain`.
    A task of Django's tasks is accepted as well.
    """
    registered, function = _registered(task)
    return [
        job
        for job in _all_waiting(registered, registered.name)
        if (args is None or _has(registered, function, job, args))
        and queue in (None, job.queue)
        and priority in (None, job.priority)
        and (tag is None or tag in job.tags)
        and (after is None or _starts_after(job, after))
    ]


def assert_enqueued(
    task: Task[..., R], args: Mapping[str, Any] | None = None, *, count: int | None = None, **wanted: Any
) -> list[Job[R]]:
    """Return the jobs that `enqueued` finds; raise AssertionError if there is none, or not `count`."""
    __tracebackhide__ = True
    found = enqueued(task, args, **wanted)
    if (len(found) == count) if count is not None else found:
        return found
    task, _ = _registered(task)
    expected = "a job" if count is None else f"{count} jobs"
    raise AssertionError(_message(task, f"expected {expected} {_criteria(task, args, wanted)}, found {len(found)}"))


def refute_enqueued(task: Task[..., Any], args: Mapping[str, Any] | None = None, **wanted: Any) -> None:
    """Raise AssertionError if `enqueued` finds a job."""
    __tracebackhide__ = True
    if found := enqueued(task, args, **wanted):
        task, _ = _registered(task)
        raise AssertionError(_message(task, f"expected no job {_criteria(task, args, wanted)}, found {len(found)}"))


def _registered(task: Any) -> tuple[Task[..., Any], Callable[..., Any]]:
    """Return a task as an application knows it, and its function; raises TypeError."""
    if isinstance(task, Task):
        return task, task
    backend = task.get_backend() if hasattr(task, "get_backend") else None
    app: Any = getattr(backend, "app", None)
    if not isinstance(app, App):
        raise TypeError(f"{task!r} is neither a task of a qworker App nor one of Django's with a backend of qworker")
    registered: Task[..., Any] = app.add_task(task)  # type: ignore[attr-defined] # a DjangoApp
    return registered, task.func


def _all_waiting(task: Task[..., Any], name: str | None) -> list[Job]:
    """Return the jobs of the application that wait to be run, oldest first."""
    queue = task.enqueuing
    if isinstance(queue, MockQueue):
        return [job for job in queue.jobs if name in (None, job.task)]
    assert isinstance(queue, Enqueuer)  # noqa: S101 - there are no others
    return [job for job in queue.admin.iterate(task=name) if job.state in WAITING and not job.hook][::-1]


def _has(task: Task[..., Any], function: Callable[..., Any], job: Job, wanted: Mapping[str, Any]) -> bool:
    """Return whether a job has these arguments, for a typed task as its handler takes them or as they are stored."""
    stored = _stored(task, function, job)
    if task.conversion is None:
        return _contains(stored, json.loads(encode(wanted)))  # a tuple is stored as a list
    try:
        held = task.load(json.dumps(job.args))
    except InvalidPayload:  # the job would fail
        held = {}
    return all(_contains(held, {name: value}) or _contains(stored, {name: value}) for name, value in wanted.items())


def _stored(task: Task[..., Any], function: Callable[..., Any], job: Job) -> Any:
    """Return the JSON values of a job's arguments by name."""
    if POSITIONAL not in job.args:
        return job.args
    parameters = [p.name for p in signature(function).parameters.values() if p.kind not in _NOT_BY_NAME]
    if getattr(task.handler, "takes_context", False):
        del parameters[0]
    return dict(zip(parameters, job.args[POSITIONAL], strict=False)) | job.args


def _contains(held: Any, wanted: Any) -> bool:
    """Return whether a value is the one wanted; a dict may hold more."""
    if isinstance(wanted, Mapping) and isinstance(held, Mapping):
        return all(name in held and _contains(held[name], value) for name, value in wanted.items())
    return bool(held == wanted)


def _starts_after(job: Job, after: datetime | timedelta) -> bool:
    if job.run_at is None or job.enqueued_at is None:
        return False
    if isinstance(after, datetime):
        return job.run_at >= check_datetime("after", after)
    # Where a test has moved the clock, start times are ahead of the database's, by which `enqueued_at` is set.
    return job.run_at - timedelta(seconds=clock.offset()) - job.enqueued_at >= after - _TOLERANCE


def _criteria(task: Task[..., Any], args: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> str:
    parts = [f"of {task.name}", *([f"with {dict(args)!r}"] if args is not None else [])]
    return " ".join(parts + [f"{name}={value!r}" for name, value in wanted.items() if value is not None])


def _message(task: Task[..., Any], expectation: str) -> str:
    """List what is there, of other tasks, too: the job may have another name."""
    there = _all_waiting(task, None)
    lines = [f"  {_line(job)}" for job in there[:_LISTED]]
    if len(there) > _LISTED:
        lines.append(f"  and {len(there) - _LISTED} more")
    return "\n".join([expectation + ("; waiting are:" if there else "; no job is waiting"), *lines])


def _line(job: Job) -> str:
    later = job.run_at if job.state is JobState.SCHEDULED else None
    when = f", runs at {later.isoformat(timespec='seconds')}" if later is not None else ""
    tags = f", tags {list(job.tags)}" if job.tags else ""
    return (
        f"{job.task} {json.dumps(job.args, ensure_ascii=False)} in {job.queue!r}, priority {job.priority}{tags}{when}"
    )
