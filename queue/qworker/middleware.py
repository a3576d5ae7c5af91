"""Middleware: functions of an application that run around its handlers."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from qworker.context import RunningJob
from qworker.errors import InvalidOperation

#: `middleware(job, call_next)` returns the result of the job, usually that of `call_next()`.
Middleware = Callable[[RunningJob, Callable[[], Any]], Any]
#: `hook()` is called when a worker process starts or stops.
ProcessHook = Callable[[], Any]


class OncePerProcess:
    """Calls a function once in each process: what it opens must not be inherited by a fork."""

    __slots__ = ("_function", "_process")

    def __init__(self, function: ProcessHook | None) -> None:
        """function: None does nothing."""
        self._function = function
        self._process = 0

    def __call__(self) -> None:
        """Call the function, unless this process has."""
        if self._function is not None and self._process != os.getpid():
            self._process = os.getpid()
            self._function()


class HandlerCall:
    """The handler of one attempt, as the innermost middleware calls it: once."""

    __slots__ = ("_args", "_handler", "_kwargs", "_started", "job", "raised", "returned")

    def __init__(
        self, job: RunningJob, handler: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        self.job = job
        #: The interrupt, snooze or exit that has left the handler; None for an Exception.
        self.raised: BaseException | None = None
        #: Whether the handler has returned.
        self.returned = False
        self._handler = handler
        self._args = args
        self._kwargs = kwargs
        self._started = False

    def __call__(self) -> Any:
        """Call the handler; raises InvalidOperation if it was called before."""
        if self._started:
            raise InvalidOperation(
                f"a middleware has called call_next() twice for job {self.job.id} ({self.job.task}): a handler runs "
                "once an attempt; raise an error, and the job is retried"
            )
        self._started = True
        try:
            result = self._handler(*self._args, **self._kwargs)
        except BaseException as error:
            if not isinstance(error, Exception):
                self.raised = error
            raise
        self.returned = True
        return result


def compose(middleware: Sequence[Middleware]) -> Callable[[HandlerCall], Any]:
    """Return a function that calls a handler through the middleware; the first one is the outermost."""
    chain: Callable[[HandlerCall], Any] = HandlerCall.__call__
    for layer in reversed(middleware):
        chain = partial(_call_layer, layer, chain)
    return chain


def _call_layer(layer: Middleware, inner: Callable[[HandlerCall], Any], call: HandlerCall) -> Any:
    return layer(call.job, partial(inner, call))
