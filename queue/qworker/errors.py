"""Exceptions that qworker raises, and interrupts of a handler."""

from collections.abc import Iterable, Mapping
from typing import Any


class QworkerError(Exception):
    """Base class of qworker's errors."""


class ConfigurationError(QworkerError):
    """The application or its settings are invalid."""


class SchemaError(ConfigurationError):
    """The schema is missing, older than the code, or too new for it."""


class PayloadTooLarge(QworkerError, ValueError):
    """The arguments of a job have more than 256 KiB of JSON, or its result more than 64 KiB."""


class InvalidPayload(QworkerError, ValueError):
    """The arguments or the result of a typed task do not fit its annotations.

    `problems` has the path and the description of each.
    """

    #: Maximum length of the message before only paths are added (characters).
    _LIMIT = 1_500

    def __init__(self, what: str, problems: Iterable[tuple[str, str]]) -> None:
        self.what = what
        self.problems = tuple(problems)
        super().__init__(what, self.problems)

    def __str__(self) -> str:
        count = len(self.problems)
        text = f"{self.what}: " + (f"{count} problems: " if count > 1 else "")
        for at, (path, problem) in enumerate(self.problems):
            if at and len(text) > self._LIMIT:
                return f"{text}; also at {', '.join(path for path, _ in self.problems[at:])}"
            text += f"{'; ' if at else ''}{path}: {problem}"
        return text


class UnknownTask(QworkerError, LookupError):
    """No task with this name is registered with the application."""


class JobNotFound(QworkerError, LookupError):
    """No job with this id exists: it was never enqueued, is not committed, or its history has expired."""


class PermanentError(QworkerError):
    """Raise this in a handler if another attempt cannot succeed: the job fails at once."""


class StoredPayloadInvalid(InvalidPayload, PermanentError):
    """The stored arguments of a job do not fit the annotations of its task: it fails without a further attempt."""


class TransientError(QworkerError):
    """Raise this in a handler to have the job retried; `retry_after` (seconds) replaces the policy's backoff."""

    def __init__(self, *args: object, retry_after: float | None = None) -> None:
        super().__init__(*args)
        self.retry_after = retry_after


class JobFailed(QworkerError):
    """A job has failed; carries the error of its last attempt.

    `job_id`. `type`: the dotted name of the exception; that of a built-in one has no module. `message` and `traceback`,
    shortened. `cause`: why the attempt ended without an exception of the handler ("timeout", "signal:SEGV", "exit:1",
    ...), or None. `attempt`: the number of the attempt, from 1; 0 if it is unknown.
    """

    def __init__(self, job_id: int, error: Mapping[str, Any] | None = None) -> None:
        error = error or {}
        attempt, cause = error.get("attempt"), error.get("cause")
        self.job_id = job_id
        # The row may have been edited by hand; no value in it may prevent this error from being raised.
        self.type = str(error.get("type") or "Unknown")
        self.message = str(error.get("message") or error.get("unreadable") or "")
        self.traceback = str(error.get("traceback") or "")
        self.cause = None if cause is None else str(cause)
        self.attempt = attempt if isinstance(attempt, int) else 0
        super().__init__(f"job {job_id} failed: {self.type}: {self.message}")


class JobCancelled(QworkerError):
    """Raised by `Job.wait` if the job was cancelled, or expired before it was started.

    `job_id`; `message`: what was recorded, or "".
    """

    def __init__(self, job_id: int, error: Mapping[str, Any] | None = None) -> None:
        self.job_id = job_id
        self.message = str((error or {}).get("message") or "")
        super().__init__(f"job {job_id} was cancelled" + (f": {self.message}" if self.message else ""))


class InvalidOperation(QworkerError, RuntimeError):
    """The operation is not possible in this context; the message says what to do instead."""


class DatabaseUnavailable(QworkerError):
    """The database cannot be reached or closed the connection; psycopg's error is the cause."""


class Interrupt(BaseException):
    """Base class of the interrupts that a signal raises inside a running handler.

    It does not derive from `Exception`, so that `except Exception` in a handler does not catch it.
    """


class TimeoutInterrupt(Interrupt):
    """The handler has exceeded its timeout."""

    def __str__(self) -> str:
        """Return why it was raised: nobody passes a message to what a signal raises."""
        return super().__str__() or "the handler has exceeded its timeout"


class CancelInterrupt(Interrupt):
    """The job was cancelled while it ran. A caller of `Job.wait` gets `JobCancelled`."""


class ShutdownInterrupt(Interrupt):
    """The worker has to stop now; the job is released and the attempt is not counted."""


class Snooze(BaseException):
    """Raised by `current_job.snooze` to leave a handler and run the job again later."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds
