"""Jobs as results of Django's tasks."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.utils import timezone

from qworker.contrib.django.api import Task, TaskError, TaskResult, TaskResultStatus
from qworker.contrib.django.errors import class_path
from qworker.job import Job, JobState
from qworker.payload import POSITIONAL

#: Django's tasks run the highest priority first, and 0 is the default; jobs the lowest, and 5 is the default.
_DEFAULT = 5
#: The priorities of jobs for Django's -100 to 100, the first ones first.
PRIORITIES = range(_DEFAULT - 100, _DEFAULT + 100 + 1)

_STATUSES = {
    JobState.SCHEDULED: TaskResultStatus.READY,
    JobState.BLOCKED: TaskResultStatus.READY,
    JobState.AVAILABLE: TaskResultStatus.READY,
    JobState.RUNNING: TaskResultStatus.RUNNING,
    JobState.COMPLETED: TaskResultStatus.SUCCESSFUL,
    # All others are FAILED.
}


def job_priority(priority: int) -> int:
    """Return the priority of the job for that of a task."""
    return _DEFAULT - int(priority)


def task_priority(priority: int) -> int:
    """Return the priority of the task for that of its job."""
    return _DEFAULT - priority


def to_result(job: Job, task: Any, backend: str) -> Any:
    """Return the TaskResult of a job; task is the Task with the options of this job, backend its alias."""
    kwargs = dict(job.args)
    args = kwargs.pop(POSITIONAL, [])
    attempts = _attempts(job)
    result = TaskResult(
        task=task,
        id=str(job.id),
        status=_STATUSES.get(job.state, TaskResultStatus.FAILED),
        enqueued_at=_local(job.enqueued_at),
        started_at=_local(attempts[0][0]) if attempts else None,
        last_attempted_at=_local(attempts[-1][0]) if attempts else None,
        finished_at=_local(job.finished_at),
        args=args if isinstance(args, list | tuple) else [args],
        kwargs=kwargs,
        backend=backend,
        errors=_errors(job),
        worker_ids=[worker for _, worker in attempts],
    )
    if job.state is JobState.COMPLETED:
        object.__setattr__(result, "_return_value", job.result)
    return result


def with_options(task: Any, **options: Any) -> Any:
    """Return a copy of a task with other options. Unlike `using`, it does not check them: the job exists already."""
    copy = object.__new__(type(task))
    for name in task.__dataclass_fields__:
        object.__setattr__(copy, name, options.get(name, getattr(task, name)))
    return copy


def stand_in(func: Callable[..., Any]) -> Any:
    """Return an unchecked Task with the defaults of Django."""
    task = object.__new__(Task)
    values = {"func": func, "takes_context": False}
    for name in Task.__dataclass_fields__:
        object.__setattr__(task, name, values.get(name))
    return task


def run_after(job: Job) -> datetime | None:
    """Return the time before which a task was not to be run, as it was given."""
    return _local(_parse((job.meta or {}).get("run_after")))


def aware(moment: datetime) -> datetime:
    """Return an aware datetime; without USE_TZ, Django's are naive in the default time zone."""
    return moment if timezone.is_aware(moment) else timezone.make_aware(moment, timezone.get_default_timezone())


def _attempts(job: Job) -> list[tuple[datetime, str]]:
    """Return when each attempt began, and the worker that made it. The last fifty that failed are known."""
    found = []
    for error in job.errors:
        began = _parse(error.get("claimed_at"))
        if began is not None:
            found.append((began, _worker(error.get("node"))))
    # The current attempt, or the one that ended the job without an error.
    if job.node is not None and job.claimed_at is not None and job.claimed_at not in (began for began, _ in found):
        found.append((job.claimed_at, _worker(job.node)))
    return found


def _worker(node: object) -> str:
    return f"node-{node}"


def _errors(job: Job) -> list[Any]:
    errors = [_error(error) for error in job.errors]
    if not errors and job.state is JobState.CANCELLED:
        errors.append(_error({"type": "Cancelled", "message": f"job {job.id} was cancelled before it was started"}))
    return errors


def _error(error: Mapping[str, Any]) -> Any:
    path, message = class_path(str(error.get("type") or "")), str(error.get("message") or "")
    last = f"{path.rpartition('.')[2]}: {message}\n"
    traceback = str(error.get("traceback") or "")
    if error.get("cause") or not traceback:  # of a process that died there are only its stacks
        traceback = f"{traceback.rstrip()}\n{last}".lstrip()
    return TaskError(exception_class_path=path, traceback=traceback if traceback.endswith("\n") else f"{traceback}\n")


def _parse(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo else None


def _local(moment: datetime | None) -> datetime | None:
    """Return a time as Django's models do: aware, or without USE_TZ naive in the default time zone."""
    if moment is None or settings.USE_TZ:
        return moment
    naive: datetime = timezone.make_naive(moment, timezone.get_default_timezone())
    return naive
