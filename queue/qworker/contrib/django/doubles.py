"""Django's backends for tests and development, for tasks with the options of this one: `@task(max_attempts=5)`."""

from typing import Any

from qworker.contrib.django.api import DummyBackend as DjangoDummyBackend
from qworker.contrib.django.api import ImmediateBackend as DjangoImmediateBackend
from qworker.contrib.django.backend import QworkerTask, check_options


class DummyBackend(DjangoDummyBackend):  # type: ignore[misc] # of Django, which has no types
    """Django's dummy backend, which keeps results in a list and runs nothing. Options of jobs are checked only."""

    task_class = QworkerTask

    def validate_task(self, task: Any) -> None:
        """Raise InvalidTask as the backend does; called when a task is declared, and for each result."""
        super().validate_task(task)
        check_options(task)


class ImmediateBackend(DjangoImmediateBackend):  # type: ignore[misc] # as above
    """Django's immediate backend, which runs a task once where it is enqueued. Options of jobs are checked only."""

    task_class = QworkerTask

    def validate_task(self, task: Any) -> None:
        """Raise InvalidTask as the backend does; called when a task is declared, and for each result."""
        super().validate_task(task)
        check_options(task)
