"""The application: a registry of tasks and schedules, and the connection to its database."""

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, overload

from qworker.admin import Admin
from qworker.ambient import Ambient
from qworker.codec import CodecFactory
from qworker.db.pool import Pool
from qworker.db.statements import DEFAULT_SCHEMA, qualify
from qworker.declaration import ClassTask, Declaration, ScheduleDeclaration
from qworker.enqueue import Enqueuer
from qworker.errors import InvalidOperation
from qworker.hooks import Hooks
from qworker.job import Job, JobState
from qworker.named_queue import Queue
from qworker.nearest import not_found
from qworker.options import PRIORITIES, UNSET, OptionKwargs, Options, Unset
from qworker.schedules import tick_of
from qworker.task import Enqueuing, Task, instance_args
from qworker.tasks import Tasks

if TYPE_CHECKING:
    from qworker.origins import Origins
    from qworker.schedule import Misfire, Schedule

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)
T = TypeVar("T", bound=Task[..., Any])


class App(Hooks):
    """One application and its database.

    dsn is a connection string, or a function that returns one and is called at each connect. The default is
    $QWORKER_DSN, then $DATABASE_URL, then libpq's PG* variables. No connection is opened before the first job is
    enqueued. typed: whether tasks are typed by default, see `task`.

    session is a function that returns the SQLAlchemy session of the caller's request or thread, or None. A job that is
    enqueued while this session is in a transaction joins it.
    """

    #: What a connection string of its own comes from, for `qworker check`.
    dsn_origin = "the application"

    def __init__(
        self,
        dsn: str | Callable[[], str] | None = None,
        *,
        schema: str = DEFAULT_SCHEMA,
        session: Callable[[], Any] | None = None,
        typed: bool | CodecFactory = False,
    ) -> None:
        super().__init__()
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
        #: The priorities that nodes of this application look for, the first ones first.
        self.priorities = PRIORITIES
        #: Connections for enqueueing and reading jobs.
        self.pool = self._make_pool()
        #: What the tracing of a node reads with each claim; None without tracing.
        self.origins: Origins | None = None
        self._session = session
        #: Finds the transaction that jobs join.
        self.ambient = self._make_ambient()
        #: Reads jobs, queues and nodes; cancels, retries and discards jobs.
        self.admin = Admin(self.pool, self.ambient, self._tasks.load_result, self._tasks.check_arguments)
        #: Stores the jobs of the tasks.
        self.enqueuing = self._make_enqueuer()

    def _make_pool(self) -> Pool:
        return Pool(self.dsn, self.schema)

    def _make_ambient(self) -> Ambient:
        return Ambient(self.pool, self._session)

    def _make_enqueuer(self) -> Enqueuing:
        return Enqueuer(self.pool, self.admin, self.ambient)

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

    def run_schedule(self, name: str) -> Job:
        """Enqueue the job of a schedule now, as at a tick, also if it is paused; return the job.

        The ticks of the schedule stay as they are. If another job holds the task's unique key, that job is returned,
        and its field `duplicate` is set. Raises InvalidOperation if the application has no schedule of this name.
        """
        schedule = self.schedules.get(name)
        if schedule is None:
            raise InvalidOperation(not_found("schedule", name, self.schedules, listing="cron list"))
        task = self.tasks[schedule.task]
        return self.admin.run_schedule(name, *tick_of(task.name, task.defaults))

    def load(self) -> None:
        """Complete the application after a command has imported it. Integrations override this."""

    def node_settings(self) -> Mapping[str, tuple[object, str]]:
        """Return settings for the nodes of this application, each with its origin for messages.

        They come after options and environment variables, and before pyproject.toml. Integrations override this.
        """
        return {}

    def replace_enqueuing(self, enqueuing: Enqueuing) -> Enqueuing:
        """Let tasks enqueue elsewhere (`qworker.testing.MockQueue`); return where they have enqueued so far."""
        before, self.enqueuing = self.enqueuing, enqueuing
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
        task: Task[..., Any] = Task(call, self.enqueuing, defaults, **own)
        task.app = self
        self._tasks.add(call, task)
        return task
