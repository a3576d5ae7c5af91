"""The functions of an application that run around its handlers, after its jobs, and in its worker processes."""

from collections.abc import Callable
from typing import Any, TypeVar

from qworker.findings import Finding
from qworker.handlers import refuse_asynchronous
from qworker.middleware import Middleware, ProcessHook
from qworker.task import EndHook, Hook

H = TypeVar("H", bound=Hook)
M = TypeVar("M", bound=Middleware)
W = TypeVar("W", bound=ProcessHook)
E = TypeVar("E", bound=EndHook)
FindingHook = Callable[[Finding, bool], object]
F = TypeVar("F", bound=FindingHook)


class Hooks:
    """The base of `App`: its decorators for functions that run when something happens.

    Register them when the application is imported.
    """

    def __init__(self) -> None:
        #: The functions called for every failed attempt, see `on_error`.
        self.error_hooks: list[Hook] = []
        #: The functions that run around every handler, the outermost first, see `middleware`.
        self.middlewares: list[Middleware] = []
        #: The functions that a worker process calls when it starts, and when it stops.
        self.start_hooks: list[ProcessHook] = []
        self.stop_hooks: list[ProcessHook] = []
        #: The functions called with every job that has ended, see `on_end`.
        self.end_hooks: list[EndHook] = []
        #: The functions called when a check finds a problem, see `on_finding`.
        self.finding_hooks: list[FindingHook] = []

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

    def on_finding(self, hook: F) -> F:
        """Register `hook(finding, resolved)` to be called when a check of database, queues or nodes finds a problem.

        finding is a `qworker.findings.Finding`; resolved is False when it was found, and True when it is gone. One node
        of the cluster makes the checks once a minute, see docs/doctor.md. Hooks run in the thread of the reports of its
        scheduler, see `on_error`. When another node takes over, it reports the findings again.
        """
        self.finding_hooks.append(_checked("on_finding", "(finding, resolved)", hook))
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


def _checked(name: str, parameters: str, function: Any) -> Any:
    if not callable(function):
        raise TypeError(f"{name} takes a function{parameters}, not {function!r}")
    refuse_asynchronous(function)
    return function
