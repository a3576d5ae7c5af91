"""The application: a registry of tasks and schedules, and the connection to its database."""

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, overload

from qworker.admin import Admin, Queue
from qworker.ambient import Ambient
from qworker.codec import CodecFactory
from qworker.db.pool import Pool
from qworker.db.statements import DEFAULT_SCHEMA, qualify
from qworker.declaration import ClassTask, Declaration, ScheduleDeclaration
from qworker.enqueue import Enqueuer
from qworker.handlers import refuse_asynchronous
from qworker.job import Job, JobState
from qworker.middleware import Middleware, ProcessHook
from qworker.options import PRIORITIES, UNSET, OptionKwargs, Options, Unset
from qworker.task import EndHook, Enqueuing, Hook, Task, instance_args
from qworker.tasks import Tasks

if TYPE_CHECKING:
    from qworker.schedule import Misfire, Schedule

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)
T = TypeVar("T", bound=Task[..., Any])
H = TypeVar("H", bound=Hook)
M = TypeVar("M", bound=Middleware)
W = TypeVar("W", bound=ProcessHook)
E = TypeVar("E", bound=EndHook)


class App:
    """One application and its database.

    dsn is a connection string, or a function that returns one and is called at each connect. The default is
    $QWORKER_DSN, then $DATABASE_URL, then libpq's PG* variables. No connection is opened before the first job is
    enqueued. typed: whether tasks are typed by default, see `task`.

    session is a function that returns the SQLAlchemy session of the caller's request or thread, or None. A job that is
    enqueued while this session is in a transaction joins it.
    """

    def __init__(
        self,
        dsn: str | Callable[[], str] | None = None,
        *,
        schema: str = DEFAULT_SCHEMA,
        session: Callable[[], Any] | None = None,
        typed: bool | CodecFactory = False,
    ) -> None:
        qualify("", schema)
        #: The connection string or function, as given.
        self.dsn = dsn
        #: The schema that holds the tables.
        self.schema = schema
        #: Whether tasks are typed by default, or the factory of their codecs.
        self.typed = typed
        #: The schedules by name.
        self.schedules: dict[str, Schedule] = {}
        self._tasks = Tasks(self.schedules)
        #: The tasks by name.
        self.tasks: dict[str, Task[..., Any]] = self._tasks.by_name
        #: The functions called for every failed attempt, see `on_error`.
        self.error_hooks: list[Hook] = []
        #: The functions that run around every handler, the outermost first, see `middleware`.
        self.middlewares: list[Middleware] = []
        #: The functions that a worker process calls when it starts, and when it stops.
        self.start_hooks: list[ProcessHook] = []
        self.stop_hooks: list[ProcessHook] = []
        #: The functions called with every job that has ended, see `on_end`.
        self.end_hooks: list[EndHook] = []
        #: The priorities that nodes of this application look for, the first ones first.
        self.priorities = PRIORITIES
        #: Connections for enqueueing and reading jobs.
        self.pool = self._make_pool()
        self._session = session
        #: Finds the transaction that jobs join.
        self.ambient = self._make_ambient()
        #: Reads jobs, queues and nodes; cancels, retries and discards jobs.
        self.admin = Admin(self.pool, self.ambient, self._tasks.load_result)
        self._enqueuing: Enqueuing = Enqueuer(self.pool, self.admin, self.ambient)

    def _make_pool(self) -> Pool:
        return Pool(self.dsn, self.schema)

    def _make_ambient(self) -> Ambient:
        return Ambient(self.pool, self._session)

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
        typed: bool | CodecFactory | Unset = UNSET,
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
        typed: bool | CodecFactory | Unset = UNSET,
        **defaults: Any,
    ) -> Any:
        """Turn a function, or a dataclass with a method `handle`, into a task.

        name: the task's name in the database; "module.qualname" by default. slow_after: seconds after which a running
        job is reported as slow; None disables the report. transactional: the handler's work on `current_job.connection`
        is committed in the same transaction as the job's completion, or not at all. typed: arguments and result are
        validated and converted by the annotations of the function, by pydantic (True) or by a codec of your own (see
        `qworker.codec`); the default is that of the App. The other options are defaults for the task's jobs, see
        `qworker.options.Options`; conn and run_at cannot have a default.
        """
        declaration = Declaration(
            self.register, name=name, slow_after=slow_after, transactional=transactional,
            typed=self.typed if typed is UNSET else typed, defaults=defaults,
        )  # fmt: skip
        if call is None:
            return declaration
        if not callable(call):
            raise TypeError(
                f"app.task decorates a function or class, not {call!r}; pass options by name: queue='emails'"
            )
        return declaration(call)

    def cron(
        self, expression: str, *, timezone: str = "UTC", name: str | None = None, misfire: "Misfire" = "once"
    ) -> Callable[[T], T]:
        """Enqueue the decorated task at each tick of a cron expression, once in the whole cluster.

        timezone: an IANA name. name: the schedule's name, under which its last tick is stored; required if a task has
        several schedules. misfire: what to do with ticks missed while no scheduler ran, see `Schedule`.
        Raises ConfigurationError if the expression is invalid or the time zone does not exist.
        """
        return ScheduleDeclaration(self.schedules, expression, timezone, name, misfire)

    def on_error(self, hook: H) -> H:
        """Register `hook(job, error)` to be called after every failed attempt, whether another attempt follows or not.

        error is a JobFailed with type, message, traceback and attempt, and cause if the worker died or the node was
        lost. Its __cause__ is the exception of the handler, or None if the process is gone. job.state is FAILED if no
        attempt follows. Hooks run in a thread of the worker, or of the scheduler if the worker died, at most once for
        each attempt. Nothing waits for them, and their exceptions are logged. A hook may be missed if its process dies;
        `Task.on_failure` runs as a job and is not.
        """
        self.error_hooks.append(_checked("on_error", "(job, error)", hook))
        return hook

    def on_end(self, hook: E) -> E:
        """Register `hook(job, error)` to be called when a worker has ended a job, after its end is stored.

        job is read from the database: completed, failed with no attempt to follow, cancelled or discarded. error is the
        exception of the handler, a JobFailed if the worker died, or None. Hooks run in the thread of the reports, see
        `on_error`, at most once for each end. They are not called for jobs that end without a worker: a waiting job
        that is cancelled, or has expired.
        """
        self.end_hooks.append(_checked("on_end", "(job, error)", hook))
        return hook

    def middleware(self, function: M) -> M:
        """Register `function(job, call_next)` to run around every handler; it returns the result of the job.

        `call_next()` calls the next middleware, the last of which calls the handler, and returns its result or raises
        its exception. The first one registered is the outermost. Middleware belongs to the attempt: its time counts
        towards the timeout, its exceptions are those of the job, and what it returns is the job's result. It may catch
        Exception; an interrupt or a snooze that it swallows decides the attempt nevertheless. `call_next` can be called
        once. Register middleware when the application is imported.
        """
        self.middlewares.append(_checked("middleware", "(job, call_next)", function))
        return function

    def on_worker_start(self, hook: W) -> W:
        """Register `hook()` to be called in each worker process before it claims jobs, in the order of registration.

        If a hook raises, the worker exits without having claimed a job, and is replaced after a growing delay. If a
        hook hangs, the worker is killed after the setting boot_timeout.
        """
        self.start_hooks.append(_checked("on_worker_start", "()", hook))
        return hook

    def on_worker_stop(self, hook: W) -> W:
        """Register `hook()` to be called in each worker process that stops, after the outcomes of its jobs are stored.

        The last one registered is called first. A worker that is killed or crashes calls none. An exception is logged.
        If a hook hangs, the worker is killed after about the setting stall_timeout, or at the end of the shutdown.
        """
        self.stop_hooks.append(_checked("on_worker_stop", "()", hook))
        return hook

    def enqueue(self, instance: ClassTask[R], **options: Unpack[OptionKwargs]) -> Job[R]:
        """Store a job that rebuilds the instance of a class task from its fields and calls `handle`.

        The current values of the fields are stored. The worker passes them to the class, so `__post_init__` runs again.
        """
        task = self._tasks.of_instance(instance)
        return task.options(**options).enqueue(**instance_args(instance))

    def get_task(self, name: str) -> Task[..., Any]:
        """Return the task with this name; raises UnknownTask."""
        return self._tasks.get(name)

    def job(self, job_id: int, *, conn: Any = UNSET) -> Job:
        """Return a job, read in the open Django transaction if there is one; raises JobNotFound.

        conn: the connection to read it on, as `Task.using` takes it. None reads what is committed.
        """
        return self.admin.get(job_id, conn)

    @overload
    def jobs(
        self,
        *,
        task: Task[..., R],
        state: JobState | str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        unique: str | None = None,
        limit: int | None = None,
    ) -> Iterator[Job[R]]: ...
    @overload
    def jobs(
        self,
        *,
        task: str | None = None,
        state: JobState | str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        unique: str | None = None,
        limit: int | None = None,
    ) -> Iterator[Job]: ...
    def jobs(
        self,
        *,
        task: Task[..., Any] | str | None = None,
        state: JobState | str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        unique: str | None = None,
        limit: int | None = None,
    ) -> Iterator[Job]:
        """Iterate over jobs, newest first, at most `limit`; without arguments over all, those of the history included.

        unique: only jobs that hold this key now. Jobs are read page by page, in the open Django transaction if there is
        one: a job that changes its state meanwhile is returned once or not at all, and new jobs are not returned.
        """
        return self.admin.iterate(
            state=state, queue=queue, task=task.name if isinstance(task, Task) else task, tag=tag, unique=unique,
            limit=limit,
        )  # fmt: skip

    def queue(self, name: str) -> Queue:
        """Return a queue by name. A queue need not be declared: it exists as soon as a job names it."""
        return Queue(name, self.admin)

    def load(self) -> None:
        """Complete the application after a command has imported it. Integrations override this."""

    def node_settings(self) -> Mapping[str, tuple[object, str]]:
        """Return settings for the nodes of this application, each with its origin for messages.

        They come after options and environment variables, and before pyproject.toml. Integrations override this.
        """
        return {}

    def replace_enqueuing(self, enqueuing: Enqueuing) -> Enqueuing:
        """Let tasks enqueue elsewhere (`qworker.testing.MockQueue`); return where they have enqueued so far."""
        before, self._enqueuing = self._enqueuing, enqueuing
        self._tasks.enqueue_by(enqueuing)
        return before

    def prepare(self) -> None:
        """Build the codecs of all typed tasks; raises ConfigurationError. A node does this before its first fork."""
        self._tasks.prepare()

    def close(self) -> None:
        """Close unused connections; the next use opens new ones."""
        self.pool.close()

    def register(self, call: Callable[..., Any], defaults: Options, **own: Any) -> Task[..., Any]:
        """Add a task, or replace it if its module is executed again.

        Raises ConfigurationError if another task has the same name.
        """
        task: Task[..., Any] = Task(call, self._enqueuing, defaults, **own)
        task.app = self
        self._tasks.add(call, task)
        return task


def _checked(name: str, parameters: str, function: Any) -> Any:
    if not callable(function):
        raise TypeError(f"{name} takes a function{parameters}, not {function!r}")
    refuse_asynchronous(function)
    return function
