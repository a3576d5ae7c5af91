"""Exceptions that stand for what ended an attempt where no handler raised anything; never raised.

Django's `TaskError.exception_class` imports the class of an error. Jobs store the names of these classes.
"""

import builtins

from qworker import errors
from qworker.errors import QworkerError


class WorkerDied(QworkerError):
    """The worker process was killed, crashed or hung while it ran the job."""


class NodeLost(QworkerError):
    """The whole node was lost while it ran the job."""


class EndRefused(QworkerError):
    """The database refuses the end of the job."""


class Expired(QworkerError):
    """The job was not started in time."""


class Cancelled(QworkerError):
    """The job was cancelled before it was started."""


class InvalidState(QworkerError):
    """The row of the job was in a state that qworker does not write."""


def class_path(name: str) -> str:
    """Return the path from which the class of a stored error is imported."""
    if "." in name:
        return name
    for module in (builtins, errors):
        if hasattr(module, name):
            return f"{module.__name__}.{name}"
    return f"{__name__}.{name if name in globals() else 'QworkerError'}"
