"""Runs single attempts in the test's process, through the code of the worker."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import inf
from time import monotonic
from typing import Any

import structlog

from qworker import App, Task
from qworker.claims import ClaimedJob
from qworker.context import RunningJob
from qworker.coroutines import CoroutineHandler
from qworker.errors import InvalidOperation
from qworker.job import JobState
from qworkerd.config.policy import Policies
from qworkerd.config.settings import Settings
from qworkerd.outcomes.outcome import Outcome
from qworkerd.outcomes.reports import Failure, Reporter
from qworkerd.worker.execution import Connections, Execution
from qworkerd.worker.interrupts import InterruptGate

#: Events of failed attempts. These are reported with the exception to the logger `qworker.job`, as in a worker.
_REPORTED = ("job.failed", "job.hook_failed")
_LEVELS = {"exception": "error", "warn": "warning", "fatal": "critical"}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt that was run."""

    #: The id of the job, its task and its queue.
    job_id: int
    task: str
    queue: str
    #: The number of the attempt, from 1.
    attempt: int
    #: The state of the job after the attempt; SCHEDULED if it is retried or snoozed.
    state: JobState
    #: The JSON arguments by name.
    args: dict[str, Any] = field(default_factory=dict)
    #: What the handler returned, as it is read back.
    result: Any = None
    #: What the handler raised; None also for a snooze.
    error: BaseException | None = None
    #: Seconds until the next attempt; None if none follows.
    delay: float | None = None
    #: Whether this was the failure hook of another job.
    hook: bool = False


class Failures(Reporter):
    """Collects the failed attempts, and reports them in this thread."""

    def __init__(self, app: App) -> None:
        super().__init__(app)
        self._waiting: list[Failure] = []

    def submit(self, failure: Failure) -> None:
        """Keep the report until the outcome is stored."""
        self._keep_raised(failure)
        self._waiting.append(failure)

    def ended(self, jobs: Iterable[int]) -> None:
        """Call the hooks of `App.on_end` with those of the jobs that have ended."""
        if self._app.end_hooks:
            self._to_end_hooks(list(jobs))

    def report(self) -> BaseException | None:
        """Report what was kept to logging and App.on_error; return the exception of the last one."""
        raised = None
        while self._waiting:
            failure = self._waiting.pop(0)
            raised = failure.raised
            self._to_logging(failure)
            self._to_hooks(failure)
        return raised


class Runs:
    """Runs attempts; timeouts apply in the main thread, as in a worker."""

    def __init__(
        self,
        app: App,
        connections: Connections,
        *,
        complete: Callable[[RunningJob, float, str | None], bool],
        progress: Callable[[int, str], None],
    ) -> None:
        self._gate = InterruptGate()
        self.failures = Failures(app)
        self._policies = Policies(Settings())
        self._execution = Execution(
            app,
            self._gate,
            connections,
            self.failures,
            complete=complete,
            progress=progress,
            store=lambda _outcome: None,
            forks=_NoForks(),
        )

    def run(self, task: Task[..., Any], row: ClaimedJob) -> Outcome | None:
        """Run one attempt; return its outcome, None if the handler returned None at once."""
        policy = self._policies.find(task, row.overrides)
        if threading.current_thread() is not threading.main_thread():
            policy = replace(policy, timeout=inf)  # signals are handled in the main thread
        outcome, _ = self._execution.run(task, policy, row, monotonic())
        return outcome

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Receive the signal of timeouts, which other code may use, and log what the worker logs to `qworker`."""
        configured = structlog.is_configured()
        if not configured:
            structlog.configure(processors=[_to_logging], cache_logger_on_first_use=False)
        try:
            with self._signals():
                yield
        finally:
            if not configured:
                structlog.reset_defaults()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        left, interval = signal.getitimer(signal.ITIMER_REAL)
        begun, before = monotonic(), signal.signal(signal.SIGALRM, self._gate.fire)
        try:
            yield
        finally:
            self._gate.disarm()
            signal.signal(signal.SIGALRM, before)
            if left:  # a watchdog of the test runner
                signal.setitimer(signal.ITIMER_REAL, max(left - (monotonic() - begun), 1e-3), interval)


class _NoForks:
    """Detects that a handler has forked, without hooks that would outlive the test."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    @property
    def in_forked_child(self) -> bool:
        """Whether this process was forked by a handler."""
        return os.getpid() != self._pid


def refuse_in_event_loop(name: str, tasks: Iterable[Task[..., Any]]) -> None:
    """Raise InvalidOperation if an asynchronous handler could not run here: each runs in an event loop of its own."""
    asyncio: Any = sys.modules.get("asyncio.events")
    if asyncio is None or asyncio._get_running_loop() is None:  # noqa: SLF001 - the public function raises without one
        return
    if found := [task.name for task in tasks if isinstance(task.handler, CoroutineHandler)]:
        raise InvalidOperation(
            f"{name}() cannot run {found[0]}, which is async def, inside of a running event loop: call it in a test "
            f"that is a plain function, or await asyncio.to_thread({name}, ...)"
        )


def _to_logging(_: object, method: str, event: Any) -> Any:
    """Send an event to the logger `qworker` instead of printing it."""
    error = event.pop("exc_info", None)
    if event["event"] in _REPORTED:
        error = None
    words = " ".join(f"{key}={value}" for key, value in event.items() if key != "event")
    level = logging.getLevelName(_LEVELS.get(method, method).upper())
    logging.getLogger("qworker").log(level, "%s %s", event["event"], words, exc_info=error)
    raise structlog.DropEvent
