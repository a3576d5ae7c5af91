"""What can go wrong, and what interrupts a handler."""

from collections.abc import Mapping
from typing import Any


class QworkerError(Exception):
    """Anything that qworker itself reports."""


class ConfigurationError(QworkerError):
    """The application or its settings cannot work as they are."""


class SchemaError(ConfigurationError):
    """The database's schema is missing, older than the code, or too new for it."""


class PayloadTooLarge(QworkerError, ValueError):
    """Arguments or a result take more bytes than a job may carry."""


class UnknownTask(QworkerError, LookupError):
    """No task of that name is registered with the application."""


class JobNotFound(QworkerError, LookupError):
    """No job of that id is known: it never was, is not committed yet, or its history is over."""


class PermanentError(QworkerError):
    """Raise it in a handler when another attempt cannot help: the job fails at once."""


class TransientError(QworkerError):
    """Raise it in a handler to be run again; `retry_after` (seconds) replaces the policy's backoff."""

    def __init__(self, *args: object, retry_after: float | None = None) -> None:
        super().__init__(*args)
        self.retry_after = retry_after


class JobFailed(QworkerError):
    """A job has failed for good; carries what its last attempt left.

    `type` is the exception's class name, `cause` is set when the worker died: "signal:SEGV", "timeout", "exit:1" ...
    """

    def __init__(self, job_id: int, error: Mapping[str, Any] | None = None) -> None:
        error = error or {}
        attempt, cause = error.get("attempt"), error.get("cause")
        self.job_id = job_id
        # A row may have been written by hand: whatever it holds, this error can be raised.
        self.type = str(error.get("type") or "Unknown")
        self.message = str(error.get("message") or error.get("unreadable") or "")
        self.traceback = str(error.get("traceback") or "")
        self.cause = None if cause is None else str(cause)
        self.attempt = attempt if isinstance(attempt, int) else 0
        super().__init__(f"job {job_id} failed: {self.type}: {self.message}")


class JobCancelled(QworkerError):
    """`Job.wait` found the job cancelled, or expired before anybody started it."""

    def __init__(self, job_id: int, error: Mapping[str, Any] | None = None) -> None:
        self.job_id = job_id
        self.message = str((error or {}).get("message") or "")
        super().__init__(f"job {job_id} was cancelled" + (f": {self.message}" if self.message else ""))


class InvalidOperation(QworkerError, RuntimeError):
    """What was asked cannot work here; the message says what to do instead."""


class DatabaseUnavailable(QworkerError):
    """The database cannot be reached, or hung up; the driver's error is the cause."""


class Interrupt(BaseException):
    """Raised by a signal inside a running handler.

    No `Exception`: a handler's `except Exception` must not swallow what ends it.
    """


class TimeoutInterrupt(Interrupt):
    """The handler has run for as long as its task may."""


class CancelInterrupt(Interrupt):
    """Somebody cancelled the job while it ran; who waits for it gets `JobWasCancelled`."""


class ShutdownInterrupt(Interrupt):
    """The worker has to stop now; the job is handed back uncounted."""


class Snooze(BaseException):
    """Leaves a handler to be run again later, by `current_job.snooze`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds
