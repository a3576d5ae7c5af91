"""The decorators that `App.task(...)` and `App.cron(...)` return, which declare tasks and schedules."""

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

from qworker.codec import CodecFactory
from qworker.errors import ConfigurationError
from qworker.options import UNSET, Options, Unset, check_timeout
from qworker.task import Task

if TYPE_CHECKING:
    from qworker.schedule import Misfire, Schedule

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
C = TypeVar("C", bound=type)
T = TypeVar("T", bound=Task[..., Any])


class ClassTask(Protocol[R_co]):
    """An instance of a class that is a task."""

    def handle(self) -> R_co:
        """Do the work of the job."""


class Declaration:
    """Turns a function or dataclass into a task."""

    def __init__(
        self,
        register: Callable[..., Task[..., Any]],
        *,
        name: str | None,
        slow_after: float | timedelta | Unset | None,
        transactional: bool,
        typed: bool | CodecFactory,
        defaults: dict[str, Any],
    ) -> None:
        for option in ("conn", "run_at"):
            if option in defaults:
                raise TypeError(f"{option} applies to one job, not to a task: pass it to .options({option}=...)")
        slow = slow_after if slow_after is UNSET else check_timeout("slow_after", slow_after)
        if not isinstance(transactional, bool):
            raise TypeError(
                f"transactional must be True or False, not {transactional!r}: it applies to current_job.connection; "
                "work on a connection of Django or SQLAlchemy is committed separately"
            )
        self._register = register
        self._defaults = Options.of(defaults)
        self._own = {"name": name, "slow_after": slow, "transactional": transactional, "typed": typed}

    # A class is callable too; the first overload must win.
    @overload
    def __call__(self, call: C) -> C: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, call: Callable[P, R]) -> Task[P, R]: ...
    def __call__(self, call: Any) -> Any:
        """Register a task and return it. A class is returned unchanged, because `app.enqueue` takes its instances."""
        task = self._register(call, self._defaults, **self._own)
        return call if isinstance(call, type) else task


class ScheduleDeclaration:
    """Adds a schedule for a task."""

    def __init__(
        self, schedules: "dict[str, Schedule]", expression: str, timezone: str, name: str | None, misfire: "Misfire"
    ) -> None:
        self._schedules = schedules
        self._expression = expression
        self._timezone = timezone
        self._name = name
        self._misfire = misfire

    def __call__(self, task: T) -> T:
        """Declare the schedule and return the task."""
        # Importing croniter takes time; only applications with schedules need it.
        from qworker.schedule import Schedule

        if not isinstance(task, Task):
            raise ConfigurationError(f"@app.cron({self._expression!r}) must be above @app.task(), not above {task!r}")
        try:
            task.parameters.check_call_without_arguments()
        except TypeError as error:
            raise ConfigurationError(
                f"@app.cron({self._expression!r}) calls the task without arguments: {error}"
            ) from None
        schedule = Schedule(self._name or task.name, task.name, self._expression, self._timezone, self._misfire)
        if schedule.name in self._schedules:
            raise ConfigurationError(f"schedule {schedule.name!r} exists already: give this one another name=")
        self._schedules[schedule.name] = schedule
        return task
