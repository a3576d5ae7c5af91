"""Failure hooks: jobs that call the function registered with `Task.on_failure` for a job that has failed."""

from collections.abc import Callable
from typing import Any

from qworker import App, Task
from qworker.errors import JobFailed
from qworker.job import Job
from qworkerd.worker.returned import check_result


def hook_handler(app: App, task: Task[..., Any], own: int) -> Callable[..., Any]:
    """Return the handler that runs a task's failure hook for a job that has failed; own is the id of the hook's job.

    The stored error of the failed job contains the id of its hook's job. The handler raises LookupError if it does not:
    the hook was then enqueued by a client, and not by a failure.
    """

    def call(job_id: int) -> None:
        job: Job = app.job(job_id)
        error = next((error for error in job.errors if error.get("hook") == own), None)
        if job.task != task.name or error is None:
            raise LookupError(
                f"job {job_id} ({job.task}) has no error that enqueued this failure hook of {task.name}: it is not run"
            )
        if task.hook is not None:
            check_result(task.hook(job, JobFailed(job_id, error)))

    return call
