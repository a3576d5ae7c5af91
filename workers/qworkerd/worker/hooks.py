"""Failure hooks: jobs that call what a task has registered for its jobs that have failed."""

from collections.abc import Callable
from typing import Any

from qworker import App, Task
from qworker.errors import JobFailed
from qworker.job import Job
from qworkerd.worker.returned import done


def hook_handler(app: App, task: Task[..., Any], own: int) -> Callable[..., Any]:
    """Return what runs a task's failure hook for a job that has failed; own is the id of the hook's job.

    The failure itself names the job of its hook. What somebody else has enqueued as a hook is refused.
    """

    def call(job_id: int) -> None:
        job: Job = app.job(job_id)
        error = next((error for error in job.errors if error.get("hook") == own), None)
        if job.task != task.name or error is None:
            raise LookupError(
                f"no failure of job {job_id} ({job.task}) has enqueued this hook of {task.name}: it is not called"
            )
        if task.hook is not None:
            done(task.hook(job, JobFailed(job_id, error)))

    return call
