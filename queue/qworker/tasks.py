"""The tasks of an application by name, and what concerns all of them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qworker.errors import ConfigurationError, UnknownTask
from qworker.identity import Declared
from qworker.nearest import not_found
from qworker.payload import Row
from qworker.task import Enqueuing, Task

if TYPE_CHECKING:
    from qworker.schedule import Schedule


class Tasks:
    """Registers tasks. A task whose module is executed again takes the place of the earlier one."""

    def __init__(self, schedules: "dict[str, Schedule]") -> None:
        self.by_name: dict[str, Task[..., Any]] = {}
        self._schedules = schedules
        self._declared: dict[str, Declared] = {}
        self._classes: dict[type, Task[..., Any]] = {}

    def add(self, call: Callable[..., Any], task: Task[..., Any]) -> None:
        """Add the task of a callable; raises ConfigurationError if another task has the same name."""
        known, declared = self.by_name.get(task.name), Declared(call)
        if known is not None:
            if not declared.redeclares(self._declared[task.name]):
                raise ConfigurationError(
                    f"two tasks are named {task.name!r}: {known.location} and {task.location}; give one of them a name="
                )
            for schedule in [s for s in self._schedules.values() if s.task == task.name]:
                del self._schedules[schedule.name]  # the module will declare it again
        self.by_name[task.name], self._declared[task.name] = task, declared
        if isinstance(call, type):
            self._classes[call] = task

    def get(self, name: str) -> Task[..., Any]:
        """Return the task with this name; raises UnknownTask."""
        try:
            return self.by_name[name]
        except KeyError:
            if self.by_name:
                raise UnknownTask(not_found("task", name, self.by_name, listing="tasks list")) from None
            problem = "the application has no tasks; are their modules imported?"
            raise UnknownTask(f"task {name!r} not found: {problem}") from None

    def of_instance(self, instance: Any) -> Task[..., Any]:
        """Return the class task of which this is an instance; raises TypeError."""
        task = self._classes.get(type(instance))
        if task is None:
            raise TypeError(
                f"app.enqueue takes an instance of a class decorated with @app.task(), not {instance!r}; "
                "call .enqueue(...) of a function task instead"
            )
        return task

    def enqueue_by(self, enqueuing: Enqueuing) -> None:
        """Let all tasks enqueue there."""
        for task in self.by_name.values():
            task.enqueuing = enqueuing

    def prepare(self) -> None:
        """Build the codecs of typed tasks; raises ConfigurationError."""
        for task in self.by_name.values():
            if task.conversion is not None:
                task.conversion.codec  # noqa: B018 - builds it

    def check_arguments(self, name: str, given: Row) -> dict[str, Any]:
        """Return arguments as they are stored, see `Task.check_arguments`; raises UnknownTask."""
        return self.get(name).check_arguments(given)

    def load_result(self, name: str, result: Any) -> Any:
        """Convert a result that was decoded from JSON, for a typed task; raises InvalidPayload.

        None remains None whatever the annotation: a result that could not be stored is absent.
        """
        task = self.by_name.get(name)
        if result is None or task is None or task.conversion is None:
            return result
        return task.conversion.load_result(result)
