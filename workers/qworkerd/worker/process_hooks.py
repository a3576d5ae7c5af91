"""Calls the hooks of an application when a worker process starts, and when it stops."""

from collections.abc import Callable

from qworker import App
from qworkerd import log


class ProcessHooks:
    """The hooks of `App.on_worker_start` and `App.on_worker_stop`. Their exceptions are logged and not raised."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._log = log.get()

    def start(self) -> bool:
        """Call the hooks of the start in their order; return False at the first that raises."""
        for hook in self._app.start_hooks:
            if (error := _raised_by(hook)) is not None:
                self._log.error(
                    "worker.start_hook_failed", hook=_name(hook), exc_info=error,
                    hint="the worker exits without having claimed a job, and is replaced after a delay",
                )  # fmt: skip
                return False
        return True

    def stop(self) -> None:
        """Call the hooks of the stop, the last one first; their exceptions are logged."""
        for hook in reversed(self._app.stop_hooks):
            if (error := _raised_by(hook)) is not None:
                self._log.error("worker.stop_hook_failed", hook=_name(hook), exc_info=error)


def _raised_by(hook: Callable[[], object]) -> BaseException | None:
    """Call a hook; return the exception that it raised, or None."""
    try:
        hook()
    except BaseException as error:  # noqa: BLE001 - even SystemExit must not skip the steps that follow
        return error
    return None


def _name(hook: object) -> str:
    return str(getattr(hook, "__qualname__", repr(hook)))
