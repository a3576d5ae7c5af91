"""The application: where its tasks and schedules are registered, and where its database is."""

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, overload

from qworker.admin import Admin, Queue
from qworker.ambient import Ambient
from qworker.db.pool import Pool
from qworker.db.statements import DEFAULT_SCHEMA, qualify
from qworker.enqueue import Enqueuer
from qworker.errors import ConfigurationError, UnknownTask
from qworker.identity import Declared
from qworker.job import Job
from qworker.options import UNSET, OptionKwargs, Options, Unset, check_timeout
from qworker.task import Hook, Task, instance_args

if TYPE_CHECKING:
    from qworker.schedule import Misfire, Schedule

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)
T = TypeVar("T", bound=Task[..., Any])
H = TypeVar("H", bound=Hook)


class Declaration:
    """What `app.task(...)` returns: makes a task of the function or dataclass below it."""

    def __init__(self, app: "App", defaults: Options, own: dict[str, Any]) -> None:
        self._app = app
        self._defaults = defaults
        self._own = own

    # A class is callable too, and the first overload is meant to win.
    @overload
    def __call__(self, call: C) -> C: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, call: Callable[P, R]) -> Task[P, R]: ...
    def __call__(self, call: Any) -> Any:
        """Register a task; a class stays the class, for its instances are what `app.enqueue` takes."""
        task = self._app.register(call, self._defaults, **self._own)
        return call if isinstance(call, type) else task


class App:
    """One application and its database.

    dsn is a connection string or a function that returns one, called at each connect; without it $QWORKER_DSN,
    $DATABASE_URL and libpq's PG* variables are asked in this order. Nothing connects before the first job.
    """

    def __init__(self, dsn: str | Callable[[], str] | None = None, *, schema: str = DEFAULT_SCHEMA) -> None:
        qualify("", schema)
        #: Where the database is, as given.
        self.dsn = dsn
        #: The schema that holds the tables.
        self.schema = schema
        #: The tasks by name.
        self.tasks: dict[str, Task[..., Any]] = {}
        #: The schedules by name.
        self.schedules: dict[str, Schedule] = {}
        #: What is called for every failed attempt, see `on_error`.
        self.error_hooks: list[Hook] = []
        #: Connections for enqueueing and looking.
        self.pool = Pool(dsn, schema)
        #: Looks at jobs, queues and nodes, and changes jobs by hand.
        ambient = Ambient(self.pool)
        self.admin = Admin(self.pool, ambient)
        self._enqueuer = Enqueuer(self.pool, self.admin, ambient)
        self._declared: dict[str, Declared] = {}
        self._classes: dict[type, Task[..., Any]] = {}

    @overload
    def task(self, call: C, /) -> C: ...  # type: ignore[overload-overlap] # as above
    @overload
    def task(self, call: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self,
        *,
        name: str | None = None,
        slow_after: float | timedelta | Unset | None = UNSET,
        transactional: bool = False,
        **defaults: Unpack[OptionKwargs],
    ) -> Declaration: ...
    def task(  # type: ignore[misc] # mypy takes the unpacked names for more than Any
        self,
        call: Any = None,
        /,
        *,
        name: str | None = None,
        slow_after: float | timedelta | Unset | None = UNSET,
        transactional: bool = False,
        **defaults: Any,
    ) -> Any:
        """Make a task of a function, or of a dataclass with a method `handle`.

        name: under which jobs are stored, "module.qualname" if not given. slow_after: seconds after which a running job
        is reported, None = never. transactional: what the handler does on `current_job.connection` commits in one
        transaction with the end of its job, or not at all. All others are defaults of the task's jobs, see
        `qworker.options.Options`; a connection or a moment is none.
        """
        for option in ("conn", "run_at"):
            if option in defaults:
                raise TypeError(f"{option} is for one job, not for a task: say it in .options({option}=...)")
        slow = slow_after if slow_after is UNSET else check_timeout("slow_after", slow_after)
        if call is not None and not callable(call):
            raise TypeError(
                f"app.task goes above a function or class, not {call!r}; options have names: queue='emails'"
            )
        if not isinstance(transactional, bool):
            raise TypeError(
                f"transactional takes True or False, not {transactional!r}: it is about current_job.connection alone; "
                "work on a connection of Django or SQLAlchemy commits by itself"
            )
        own = {"name": name, "slow_after": slow, "transactional": transactional}
        declaration = Declaration(self, Options.of(defaults), own)
        return declaration if call is None else declaration(call)

    def cron(
        self, expression: str, *, timezone: str = "UTC", name: str | None = None, misfire: "Misfire" = "once"
    ) -> Callable[[T], T]:
        """Enqueue the task below at each tick of a cron expression, once in the whole cluster.

        timezone: IANA name. name: under which the last tick is kept; needed when a task has several schedules.
        misfire: what to do about ticks that passed while no scheduler ran, see `qworker.schedule.Schedule`.
        Raises ConfigurationError for an expression or a zone that does not exist.
        """
        # croniter is imported by those who use it.
        from qworker.schedule import Schedule

        def declare(task: T) -> T:
            if not isinstance(task, Task):
                raise ConfigurationError(f"@app.cron({expression!r}) goes above @app.task(), not above {task!r}")
            try:
                task.parameters.bind((), {})
            except TypeError as error:
                raise ConfigurationError(f"@app.cron({expression!r}) calls a task without arguments: {error}") from None
            schedule = Schedule(name or task.name, task.name, expression, timezone, misfire)
            if schedule.name in self.schedules:
                raise ConfigurationError(
                    f"there is a schedule {schedule.name!r} already: give this one a name= of its own"
                )
            self.schedules[schedule.name] = schedule
            return task

        return declare

    def on_error(self, hook: H) -> H:
        """Have `hook(job, error)` called for every attempt that fails, whether another follows or not.

        error is a JobFailed: type, message, traceback, attempt, and cause where the worker died or the node was lost.
        Its __cause__ is what the handler raised, None where its process is gone. job.state is FAILED if no attempt
        follows. Hooks run in a thread of the worker, or of the scheduler where the worker died, at most once for each
        attempt. Nothing waits for them, and what they raise is logged. For what must not be missed there is
        `Task.on_failure`, which is a job.
        """
        if not callable(hook):
            raise TypeError(f"on_error takes a function of (job, error), not {hook!r}")
        self.error_hooks.append(hook)
        return hook

    def enqueue(self, instance: Any, **options: Unpack[OptionKwargs]) -> Job:
        """Store a job that rebuilds a class task's instance from its fields and calls `handle`.

        The fields are stored as they are now; the worker passes them to the class, so that `__post_init__` runs again.
        """
        task = self._classes.get(type(instance))
        if task is None:
            raise TypeError(
                f"app.enqueue takes an instance of a class under @app.task(), not {instance!r}; "
                "for a function there is its own .enqueue(...)"
            )
        return task.options(**options).enqueue(**instance_args(instance))

    def get_task(self, name: str) -> Task[..., Any]:
        """Return the task of a name; raises UnknownTask."""
        try:
            return self.tasks[name]
        except KeyError:
            known = ", ".join(sorted(self.tasks)) or "none: are their modules imported?"
            raise UnknownTask(f"no task {name!r}; there are: {known}") from None

    def job(self, job_id: int) -> Job:
        """Look a job up, in a Django transaction on its connection; raises JobNotFound."""
        return self.admin.show(job_id)

    def queue(self, name: str) -> Queue:
        """Return a queue by name; it exists when a job names it."""
        return Queue(name, self.admin)

    def close(self) -> None:
        """Close unused connections; the next use opens new ones."""
        self.pool.close()

    def register(self, call: Callable[..., Any], defaults: Options, **own: Any) -> Task[..., Any]:
        """Add a task, or replace it when its module is executed again.

        Raises ConfigurationError when its name is taken by another one.
        """
        task: Task[..., Any] = Task(call, self._enqueuer, defaults, **own)
        known, declared = self.tasks.get(task.name), Declared(call)
        if known is not None:
            if not declared.redeclares(self._declared[task.name]):
                raise ConfigurationError(
                    f"two tasks are named {task.name!r}: {known.location} and {task.location}; give one of them a name="
                )
            for schedule in [s for s in self.schedules.values() if s.task == task.name]:
                del self.schedules[schedule.name]  # it is declared again likewise
        self.tasks[task.name], self._declared[task.name] = task, declared
        if isinstance(call, type):
            self._classes[call] = task
        return task
