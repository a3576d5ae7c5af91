"""Runs the coroutine of an asynchronous handler: one event loop for each job, in the thread of the worker.

An interrupt reaches the coroutine as a cancellation. A signal can arrive anywhere in the code of the event loop, where
an exception would be lost or would break the loop. Therefore the signal only asks the loop to cancel the handler.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from qworker.errors import Interrupt, QworkerError

#: Seconds after a cancellation after which an interrupt is raised wherever the code is: the loop may be stuck.
STUCK_AFTER = 2.0


class CoroutineHandler:
    """An asynchronous function as a handler: returns what its coroutine returns."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the coroutine to its end in a new event loop."""
        coroutine = self._call(*args, **kwargs)  # first: if the arguments do not fit, no loop is left open
        return LoopRun().run(coroutine)


class LoopRun:
    """One run of a coroutine."""

    def __init__(self) -> None:
        import asyncio

        self._loop = asyncio.new_event_loop()
        self._main: Any = None  # an asyncio.Task
        self._interrupt: type[Interrupt] | None = None

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to its end, and return its result; raises the interrupt by which it was cancelled."""
        import asyncio

        global _current  # noqa: PLW0603 - a process runs one handler at a time
        outer, _current = _current, self
        try:
            self._main = self._loop.create_task(coroutine)
            try:
                return self._loop.run_until_complete(self._main)
            except asyncio.CancelledError as error:
                if self._interrupt is not None:
                    raise self._interrupt from None
                raise QworkerError("the handler has cancelled itself (asyncio.CancelledError)") from error
            except Exception as error:
                if self._interrupt is not None:
                    raise self._interrupt from error  # of the cleanup after the cancellation
                raise
            finally:
                self._end()
        finally:
            _current = outer
            self._loop.close()

    def cancel(self, interrupt: type[Interrupt]) -> bool:
        """Cancel the coroutine; return False if that was done before, or is not possible any more."""
        if self._interrupt is not None or self._main is None or self._main.done():
            return False
        self._interrupt = interrupt
        # Called by a signal handler in the thread of the loop: this also wakes the loop up.
        self._loop.call_soon_threadsafe(self._main.cancel)
        return True

    def _end(self) -> None:
        """Cancel the tasks that the handler has left, and close its generators and threads."""
        import asyncio

        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())


_current: LoopRun | None = None


def cancel_running(interrupt: type[Interrupt]) -> bool:
    """Cancel the coroutine that runs in this process; return False if the interrupt has to be raised instead."""
    return _current is not None and _current.cancel(interrupt)
