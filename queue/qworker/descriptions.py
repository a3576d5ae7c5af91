"""What a task says about itself: docstring, signature, options, and the schedules that enqueue it."""

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

from qworker.durations import format_duration
from qworker.forms import codec_of
from qworker.options import UNSET
from qworker.task import Task

if TYPE_CHECKING:
    from qworker.schedule import Schedule


@dataclass(frozen=True, slots=True)
class TaskDescription:
    """A task of the application. The database knows none of this but its name, its queue and its schedules."""

    name: str
    #: The docstring, without its indentation; empty if there is none.
    doc: str
    #: "(user_id: int, copies: int = 1) -> None".
    signature: str
    queue: str
    priority: int
    #: Seconds that a handler may run; None: without limit. Not known if `timeout_of_node`.
    timeout: float | None
    #: Whether the limit is that of the node that runs it.
    timeout_of_node: bool
    #: The policy for failed attempts by name, without what is a function.
    retry: Mapping[str, Any]
    #: Which of its jobs exclude each other: "no", "by its arguments", "key 'x'", "by its arguments, for 1h".
    unique: str
    #: Whether arguments are converted and validated by its annotations.
    typed: bool
    #: Whether the work of the handler is committed with the completion of the job.
    transactional: bool
    #: Whether it has a hook for jobs that have failed.
    on_failure: bool
    #: Whether it adapts the stored arguments of older code.
    upgrade: bool
    #: Its schedules by name.
    schedules: "Mapping[str, Schedule]"
    #: The JSON schema of its arguments; None if it is not typed.
    schema: Mapping[str, Any] | None
    #: The module, the name and the line of the function.
    location: str

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return self.doc.partition("\n")[0]

    @property
    def timeout_text(self) -> str | None:
        """The timeout as text; None if it is that of the node."""
        if self.timeout_of_node:
            return None
        return "none" if self.timeout is None else format_duration(self.timeout)

    def as_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {
            "schedules": {
                name: {"expression": schedule.expression, "timezone": schedule.timezone}
                for name, schedule in self.schedules.items()
            }
        }


def describe(task: Task[..., Any], schedules: "Mapping[str, Schedule]") -> TaskDescription:
    """Return what a task says about itself; schedules are those of its application. Raises ConfigurationError."""
    codec = codec_of(task)
    timeout: Any = task.timeout
    return TaskDescription(
        name=task.name, doc=_doc(task), signature=_signature(task), queue=task.queue, priority=task.priority,
        timeout=None if timeout is UNSET else timeout, timeout_of_node=timeout is UNSET,
        retry={name: value for name, value in asdict(task.retry).items() if not callable(value)},
        unique=_unique(task), typed=codec is not None, transactional=task.transactional,
        on_failure=task.hook is not None,
        upgrade=task.conversion is not None and task.conversion.upgrade is not None,
        schedules={name: schedule for name, schedule in sorted(schedules.items()) if schedule.task == task.name},
        schema=None if codec is None else codec.schema(), location=task.location,
    )  # fmt: skip


def _doc(task: Task[..., Any]) -> str:
    """Return the docstring; the one that Python writes for a dataclass says only what the signature says."""
    text = inspect.cleandoc(task.__doc__ or "")
    return "" if text.startswith(f"{task.__name__}(") else text


def _signature(task: Task[..., Any]) -> str:
    try:
        found = inspect.signature(task)
    except ValueError:
        return "(...)"
    text = str(found)
    if "Annotated[" not in text:
        return text
    try:  # what is annotated besides the type is in the schema
        hints = get_type_hints(inspect.unwrap(task))
    except Exception:  # noqa: BLE001 - annotations may be anything, and names in them may be missing
        return text
    return str(found.replace(parameters=[
        parameter.replace(annotation=hints.get(parameter.name, parameter.annotation))
        for parameter in found.parameters.values()
    ]))  # fmt: skip


def _unique(task: Task[..., Any]) -> str:
    unique, seconds = task.defaults.unique, task.defaults.unique_for
    if not unique and seconds is UNSET:
        return "no"
    key = f"key {unique!r}" if isinstance(unique, str) else "by its arguments"
    return key if seconds is UNSET else f"{key}, for {format_duration(float(seconds))}"  # type: ignore[arg-type] # seconds by now
