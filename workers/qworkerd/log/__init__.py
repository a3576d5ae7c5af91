"""Logging: each event is one line on standard error, with the context of the running job and without secrets.

The pipeline is imported when its first name is used: structlog imports rich if it is installed, and most commands log
nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qworkerd.log.pipeline import ATTEMPTS, LEVELS, bind_process, configure, count_events, get, is_console

__all__ = ["ATTEMPTS", "LEVELS", "bind_process", "configure", "count_events", "get", "is_console"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from qworkerd.log import pipeline

    return getattr(pipeline, name)
