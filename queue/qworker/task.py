"""A task: a named function or class whose calls are stored as jobs."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import update_wrapper
from inspect import signature
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, Protocol, TypeVar, Unpack, overload

from qworker.codec import CodecFactory, Conversion, TypedParameters, Upgrade
from qworker.coroutines import CoroutineHandler
from qworker.errors import ConfigurationError, JobFailed
from qworker.handlers import default_name, is_asynchronous, location, refuse_asynchronous
from qworker.job import Job
from qworker.options import UNSET, OptionKwargs, Options, Unset, check_name
from qworker.payload import POSITIONAL, Parameters, Row, encode
from qworker.retry import Retry
from qworker.spec import JobSpec

__all__ = ["UNSET", "ConfiguredTask", "Task", "Unset"]

P = ParamSpec("P")
R = TypeVar("R")
U = TypeVar("U", bound=Upgrade)
Hook = Callable[[Job, JobFailed], Any]
EndHook = Callable[[Job, BaseException | None], Any]

#: What tasks of other libraries call these methods.
_ELSEWHERE = {
    "delay": "enqueue(...)",
    "apply_async": "options(delay=..., queue=...).enqueue(...)",
    "delay_on_commit": "enqueue(...), which joins the transaction that is open",
    "apply_async_on_commit": "options(...).enqueue(...), which joins the transaction that is open",
    "schedule": "options(delay=...).enqueue(...)",
    "send": "enqueue(...)",
    "send_with_options": "options(...).enqueue(...)",
    "defer": "enqueue(...)",
    "configure": "options(...)",
}


class Enqueuing(Protocol):
    """Stores jobs; implemented by `qworker.enqueue.Enqueuer`."""

    def one(self, spec: JobSpec, args: Mapping[str, Any], conn: Any = UNSET) -> Job: ...
    async def aone(self, spec: JobSpec, args: Mapping[str, Any], conn: Any = UNSET) -> Job: ...
    def many(
        self, spec: JobSpec, parameters: Parameters, rows: Iterable[Row], conn: Any = UNSET, *, ids: bool = False
    ) -> int | list[int]: ...


class Task(Generic[P, R]):
    """A named handler. Calling the task calls the function; `enqueue` stores the call as a job."""

    # Copied from the function, like the docstring.
    __name__: str
    __qualname__: str

    def __init__(
        self,
        call: Callable[P, R],
        enqueuing: Enqueuing,
        defaults: Options,
        *,
        name: str | None = None,
        slow_after: float | Unset | None = UNSET,
        transactional: bool = False,
        typed: bool | CodecFactory = False,
    ) -> None:
        asynchronous = is_asynchronous(call)
        if not asynchronous:
            refuse_asynchronous(call)
        #: The name stored with jobs; "module.qualname" by default.
        self.name = check_name("name", name if name is not None else default_name(call))
        #: The default queue of its jobs.
        self.queue: str = defaults.queue or "default"
        #: The default priority of its jobs.
        self.priority: int = 5 if defaults.priority is UNSET else defaults.priority
        #: Seconds that a handler may run; None disables the timeout, UNSET uses the worker's default.
        self.timeout: float | Unset | None = defaults.timeout  # type: ignore[assignment] # checked, seconds by now
        #: The policy for failed attempts.
        self.retry: Retry = defaults.retry if isinstance(defaults.retry, Retry) else Retry()
        #: Seconds after which a running job is reported as slow; None disables it, UNSET uses the worker's default.
        self.slow_after = slow_after
        #: Whether work on `current_job.connection` is committed in the same transaction as the job's completion.
        self.transactional = transactional
        #: The callable that the worker calls.
        self.handler: Callable[..., Any] = CoroutineHandler(call) if asynchronous else call
        #: The callable that the worker calls when a job has failed, after its last attempt.
        self.hook: Hook | None = None
        #: The application that has registered the task.
        self.app: Any = None
        #: Where the function is defined, for messages.
        self.location = location(call)
        self.defaults = defaults
        self.enqueuing = enqueuing
        self._call = call
        if isinstance(call, type):
            self._use_class(call)
        #: The conversion of what is stored, if the task is typed or has an upgrade; None: arguments are plain JSON.
        self.conversion = Conversion(call, self.name, typed) if typed else None
        #: The parameters of the function.
        self.parameters = (
            TypedParameters(call, self.name, self.conversion) if self.conversion else Parameters(call, self.name)
        )
        self._plain = ConfiguredTask(self, Options())
        update_wrapper(self, call, updated=())

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function directly, without a job."""
        return self._call(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    if not TYPE_CHECKING:  # a type checker would take any attribute for defined

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(no_attribute("Task", name), name=name, obj=self)

    def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Store a job that calls the function with these arguments.

        Raises TypeError if they do not match the signature or are not JSON serializable, ValueError for values such as
        NaN or NUL characters, PayloadTooLarge above 256 KiB, SchemaError, and DatabaseUnavailable.
        """
        return self._plain.enqueue(*args, **kwargs)

    async def aenqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Store a job as `enqueue` does, without blocking the event loop.

        With `using(conn)`, conn may be an asynchronous connection of psycopg, or an AsyncSession or AsyncConnection of
        SQLAlchemy over psycopg. Otherwise `enqueue` runs in a thread, and the job is committed at once.
        """
        return await self._plain.aenqueue(*args, **kwargs)

    @overload
    def enqueue_many(self, rows: Iterable[Row], *, ids: Literal[False] = False) -> int: ...
    @overload
    def enqueue_many(self, rows: Iterable[Row], *, ids: Literal[True]) -> list[int]: ...
    def enqueue_many(self, rows: Iterable[Row], *, ids: bool = False) -> int | list[int]:
        """Store a job for each row, all or none: a tuple or list of positional arguments, or a dict of named ones.

        Rows may be a generator of any length. Returns their number, or their ids in the order of the rows if `ids` is
        true. Raises what `enqueue` raises; the error names the index of the row.
        """
        return self._plain.many(rows, ids=ids)

    def options(self, **named: Unpack[OptionKwargs]) -> "ConfiguredTask[P, R]":
        """Return the task with options for the jobs it enqueues; see `qworker.options.Options`."""
        return self._plain.options(**named)

    def using(self, conn: Any = UNSET, **others: Any) -> "ConfiguredTask[P, R]":
        """Return the task for enqueueing on the caller's connection: jobs commit or roll back with the caller's work.

        conn is a psycopg Connection, a SQLAlchemy Session or Connection, a Django alias, or None for the
        application's own connections. Enqueueing raises TypeError for anything else, also for a connection whose driver
        cannot enqueue, and ValueError for an unknown alias.
        """
        return self._plain.using(conn, **others)

    def upgrade(self, function: U) -> U:
        """Register `function(args)`, which adapts the stored arguments of jobs that older code has enqueued.

        It is called for every job before its arguments are validated, with a dict of JSON values by name, and returns
        the dict that this code takes. It has to leave arguments unchanged that are up to date.
        """
        if self.conversion is None:
            self.conversion = Conversion(self._call, self.name, typed=False)
        if self.conversion.upgrade is not None:
            raise ConfigurationError(
                f"task {self.name} has an upgrade already: {location(self.conversion.upgrade)}; extend it"
            )
        refuse_asynchronous(function)
        self.conversion.upgrade = function
        return function

    def load(self, text: str) -> dict[str, Any]:
        """Return the arguments of the handler for the JSON text that is stored; raises StoredPayloadInvalid."""
        args: dict[str, Any] = json.loads(text) if self.conversion is None else self.conversion.load(text)
        return args

    def check_arguments(self, given: Row) -> dict[str, Any]:
        """Return arguments by name, or by position, as they are stored; the values are those that JSON has.

        Raises TypeError if they do not fit the signature, and ValueError for values that a typed task rejects.
        """
        positional, named = ((), given) if isinstance(given, Mapping) else (given, {})
        if self.conversion is not None:
            named = self.load(json.dumps(dict(named) | ({POSITIONAL: list(positional)} if positional else {})))
            positional = named.pop(POSITIONAL, ())
        stored: dict[str, Any] = json.loads(encode(self.parameters.bind(positional, named)))
        return stored

    def run(self, text: str) -> Any:
        """Call the handler with stored arguments; a worker does this for typed tasks and tasks with an upgrade."""
        args = self.load(text)
        return self.handler(*args.pop(POSITIONAL, ()), **args)

    def on_failure(self, hook: Hook) -> Hook:
        """Register `hook(job, error)`, which a worker calls once when a job has failed after its last attempt.

        job is the failed Job, error a JobFailed. The hook is a job, under the timeout of the task. Raises
        ConfigurationError if the task has a hook already.
        """
        if self.hook is not None:
            raise ConfigurationError(f"task {self.name} has an on_failure hook already: {location(self.hook)}")
        refuse_asynchronous(hook)
        self.hook = hook
        return hook

    def _use_class(self, kind: type) -> None:
        """Set up a dataclass with a method `handle`: a job's arguments are its fields, and the handler builds it."""
        handle = getattr(kind, "handle", None)
        if not callable(handle):
            raise ConfigurationError(f"{self.name}: a class task needs a method handle(self)")
        if not is_dataclass(kind):
            raise ConfigurationError(
                f"{self.name}: a class task must be a dataclass: write @app.task() above @dataclass"
            )
        if lost := signature(kind).parameters.keys() - {field.name for field in fields(kind)}:
            raise ConfigurationError(f"{self.name}: {', '.join(sorted(lost))} would be lost: a job stores only fields")
        build: Callable[..., Any] = kind
        if is_asynchronous(handle):
            self.handler = CoroutineHandler(lambda *args, **kwargs: build(*args, **kwargs).handle())
        else:
            refuse_asynchronous(handle)
            self.handler = lambda *args, **kwargs: build(*args, **kwargs).handle()
        if callable(failed := getattr(kind, "failed", None)):
            refuse_asynchronous(failed)
            self.hook = lambda job, error: self._rebuild(build, job).failed(error)

    def _rebuild(self, build: Callable[..., Any], job: Job) -> Any:
        args = self.load(json.dumps(job.args))
        return build(*args.pop(POSITIONAL, ()), **args)


class ConfiguredTask(Generic[P, R]):
    """A task together with options; made by `Task.options` and `Task.using`."""

    __slots__ = ("_options", "_spec", "_task")

    def __init__(self, task: Task[P, R], options: Options) -> None:
        self._task = task
        self._options = options
        self._spec = JobSpec.of(task.name, task.defaults, options)

    def __repr__(self) -> str:
        return f"<{self._task!r} with {self._options!r}>"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(no_attribute("ConfiguredTask", name), name=name, obj=self)

    def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Store a job with these options; see `Task.enqueue`."""
        task = self._task
        return task.enqueuing.one(self._spec, task.parameters.bind(args, kwargs), self._options.conn)

    async def aenqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Store a job with these options; see `Task.aenqueue`."""
        task = self._task
        return await task.enqueuing.aone(self._spec, task.parameters.bind(args, kwargs), self._options.conn)

    @overload
    def enqueue_many(self, rows: Iterable[Row], *, ids: Literal[False] = False) -> int: ...
    @overload
    def enqueue_many(self, rows: Iterable[Row], *, ids: Literal[True]) -> list[int]: ...
    def enqueue_many(self, rows: Iterable[Row], *, ids: bool = False) -> int | list[int]:
        """Store a job for each row with these options; see `Task.enqueue_many`."""
        return self.many(rows, ids=ids)

    def many(self, rows: Iterable[Row], *, ids: bool) -> int | list[int]:
        """Store a job for each row; shared by both `enqueue_many` methods."""
        task = self._task
        return task.enqueuing.many(self._spec, task.parameters, rows, self._options.conn, ids=ids)

    def options(self, **named: Unpack[OptionKwargs]) -> "ConfiguredTask[P, R]":
        """Return the task with further options; these override earlier ones."""
        return ConfiguredTask(self._task, self._options.merge(Options.of(dict(named))))

    def using(self, conn: Any = UNSET, **others: Any) -> "ConfiguredTask[P, R]":
        """Return the task with these options and the caller's connection; see `Task.using`."""
        if others or conn is UNSET:
            rest = f"; pass {', '.join(others)} to .options({next(iter(others))}=...)" if others else ""
            raise TypeError(f"using() takes only a connection{rest}")
        return self.options(conn=conn)


def instance_args(instance: Any) -> dict[str, Any]:
    """Return the arguments that rebuild a dataclass instance."""
    return {field.name: getattr(instance, field.name) for field in fields(instance) if field.init}


def no_attribute(kind: str, name: str) -> str:
    """Return the message of an AttributeError; for a method of another library it names ours."""
    found = f"{kind!r} object has no attribute {name!r}"
    return f"{found}: call .{_ELSEWHERE[name]}" if name in _ELSEWHERE else found
