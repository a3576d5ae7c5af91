"""Django's tasks as tasks of an application: what a worker calls, and the signals around it."""

import sys
from collections.abc import Callable
from typing import Any

from qworker.context import current_job
from qworker.contrib.django.api import (
    Task,
    TaskContext,
    normalize_json,
    task_backends,
    task_finished,
    task_started,
)
from qworker.contrib.django.middleware import receivers
from qworker.payload import encode_result


class Handler:
    """Runs a task of Django as the handler of a job."""

    def __init__(self, task: Any, read_result: Callable[[int], Any]) -> None:
        self.task = task
        #: Whether the function takes a TaskContext before its arguments.
        self.takes_context: bool = task.takes_context
        self._read_result = read_result
        self.__module__, self.__qualname__ = task.func.__module__, task.func.__qualname__
        self.__name__, self.__doc__ = task.func.__name__, task.func.__doc__

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Send the signal and call the task; raises TypeError if the result is not JSON serializable."""
        result = self._read_result(current_job.id)
        with receivers("a receiver of task_started"):
            task_started.send_robust(sender=sender(result.backend), task_result=result)
        context = (TaskContext(task_result=result),) if self.task.takes_context else ()
        value = normalize_json(self.task.call(*context, *args, **kwargs))
        # A worker would drop a result that it cannot store. Here the result is part of the task.
        encode_result(value)
        return value


def sender(alias: str) -> type:
    """Return the class of the backend with this alias, which is the sender of its signals."""
    return type(task_backends[alias])


def send_finished(result: Any, error: BaseException | None) -> None:
    """Send the signal of a task that has ended; receivers find its error by sys.exc_info()."""
    try:
        _raise(error)
    except BaseException:  # noqa: BLE001 - whatever has ended the task
        task_finished.send_robust(sender=sender(result.backend), task_result=result)
    else:
        task_finished.send_robust(sender=sender(result.backend), task_result=result)


def _raise(error: BaseException | None) -> None:
    if error is not None:
        raise error


def loaded(path: str) -> Any:
    """Return the task at this path if its module is loaded; None otherwise. Nothing is imported."""
    module, _, name = path.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, Task) and path_of(found) == path else None


def all_loaded() -> list[Any]:
    """Return the tasks of all modules that are loaded."""
    values = [
        value for module in list(sys.modules.values()) for value in list(getattr(module, "__dict__", {}).values())
    ]
    # type() instead of isinstance(), which would evaluate a lazy object.
    return [value for value in values if issubclass(type(value), Task)]


def path_of(task: Any) -> str:
    """Return the name under which a task's jobs are stored."""
    return f"{task.func.__module__}.{task.func.__qualname__}"


def removed(path: str) -> Callable[..., Any]:
    """Return a function that stands for that of a task which does not exist any more."""

    def func(*_: Any, **__: Any) -> None:
        raise ImportError(f"task {path!r} not found: it was removed or renamed, or its module is not imported here")

    func.__module__, _, func.__name__ = path.rpartition(".")
    func.__qualname__ = func.__name__
    return func
