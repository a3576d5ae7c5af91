"""A backend for Django's tasks: `TASKS = {"default": {"BACKEND": "qworker.contrib.django.Backend"}}`."""

import re
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from qworker.contrib.django.api import (
    BaseTaskBackend,
    InvalidTask,
    Task,
    TaskResultDoesNotExist,
    normalize_json,
    task_enqueued,
)
from qworker.contrib.django.application import DjangoApp, application, options_of
from qworker.contrib.django.configuration import task_options
from qworker.contrib.django.stores import owner
from qworker.contrib.django.tasks import path_of
from qworker.errors import JobNotFound
from qworker.options import UNSET, Options, Unset
from qworker.task import no_attribute

_ID = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class QworkerTask(Task):  # type: ignore[misc] # of Django, which has no types
    """A task of Django with the options of a job: `@task(timeout=60, max_attempts=5)`, from Django 6.1 on."""

    #: Seconds that an attempt may take; None: no limit.
    timeout: float | timedelta | Unset | None = UNSET
    #: How often the task is attempted; Django's own backends do it once.
    max_attempts: int | Unset = UNSET
    #: Seconds before the second attempt, doubled before each further one.
    backoff: float | timedelta | Unset = UNSET
    #: A key that only one unfinished job of the task may hold; True derives it from the arguments.
    unique: str | bool | Unset = UNSET

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(_no_attribute(name), name=name, obj=self)

    def options(self) -> Options:
        """Return the options of the jobs; raises TypeError or ValueError."""
        return task_options(
            timeout=self.timeout, max_attempts=self.max_attempts, backoff=self.backoff, unique=self.unique
        )


def _no_attribute(name: str) -> str:
    # What `options(...)` is for tasks of an App is `using(...)` for Django's.
    return no_attribute("Task", name).replace("options(delay=...", "using(run_after=...").replace("options(", "using(")


def check_options(task: Any) -> None:
    """Raise InvalidTask if a job cannot have the options of a task."""
    try:
        options_of(task)
    except (TypeError, ValueError) as error:
        raise InvalidTask(f"{path_of(task)}: {error}") from error


class Backend(BaseTaskBackend):  # type: ignore[misc] # as above
    """Stores Django's tasks as jobs, in the transaction of the caller; nodes of its alias run them."""

    task_class = QworkerTask
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    @cached_property
    def app(self) -> DjangoApp:
        """The application that stores the jobs and reads the results; all threads share it."""
        app = application(self.alias, dict(self.options))
        app.serve_tasks()
        return app

    def validate_task(self, task: Any) -> None:
        """Raise InvalidTask if a task cannot be run; called when it is declared, and for each job."""
        super().validate_task(task)
        name = task.func.__qualname__
        if not name.isidentifier():  # a lambda, or a function in a class
            raise InvalidTask(f"Task function must be defined at a module level, so that workers find it: {name!r}.")
        try:
            self.app.queue_options(task)
            self.app.add_task(task)
        except (TypeError, ValueError) as error:
            raise InvalidTask(f"{path_of(task)}: {error}") from error

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Store a job; in the open transaction, or else committed at once."""
        self.validate_task(task)
        args, kwargs = normalize_json(args), normalize_json(kwargs)
        result = self._result(self.app.enqueue_task(task, args, kwargs), task)
        # The job exists: an error of a receiver must not look like one of enqueueing.
        task_enqueued.send_robust(type(self), task_result=result)
        return result

    def get_result(self, result_id: Any) -> Any:
        """Return the result of a job of this backend; raises TaskResultDoesNotExist."""
        if isinstance(result_id, str) and _ID.fullmatch(result_id) and int(result_id) < 1 << 63:
            try:
                job = self.app.job(int(result_id))
            except JobNotFound:
                raise TaskResultDoesNotExist(result_id) from None
            own = self.app.configuration
            if owner(own, job.queue) == own and (result := self.app.task_result(job)) is not None:
                return result
        raise TaskResultDoesNotExist(result_id)

    def check(self, **_: Any) -> list[Any]:
        """Return messages of the system check framework."""
        from qworker.contrib.django.checks import check_backend

        return check_backend(self)

    def _result(self, job: Any, task: Any) -> Any:
        from qworker.contrib.django.results import to_result

        if not job.duplicate:
            return to_result(job, task, self.alias)
        # The job that holds the unique key, perhaps with other arguments or of another backend.
        holder, own = self.app.job(job.id), self.app.configuration
        found = owner(own, holder.queue) or own
        app = self.app if found == own else application(found.alias)
        result = app.task_result(holder)
        return result if result is not None else to_result(holder, task, self.alias)
