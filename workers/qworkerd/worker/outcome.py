"""What became of a run, and what follows from it."""

import math
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from qworker.errors import Interrupt, JobCancelled, JobInterrupted, JobTimeout, Snooze, TransientError
from qworker.retry import MAX_PAUSE
from qworkerd.policy import Policy

#: How much of a message and of a traceback is kept with the job (characters).
MESSAGE, TRACEBACK = 2_000, 8_000


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The handler returned; result is JSON text, None for None."""

    duration: float
    result: str | None


@dataclass(frozen=True, slots=True)
class Committed:
    """The handler returned, and the end of its job was committed with its work."""


@dataclass(frozen=True, slots=True)
class Session:
    """A session of the server that was lost in a commit: nobody knows yet what has become of that."""

    #: The server's process, and the end of the session's application_name.
    pid: int
    role: str


@dataclass(frozen=True, slots=True)
class Retried:
    """Another attempt follows after `delay` seconds; unless the lost session has committed."""

    delay: float
    error: dict[str, Any]
    lost: Session | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """No other attempt follows, unless the lost session has committed; hook: whether the task wants to hear of it."""

    error: dict[str, Any]
    hook: bool
    lost: Session | None = None


@dataclass(frozen=True, slots=True)
class PutOff:
    """The job comes again after `delay` seconds, uncounted; bounced: because this worker does not know its task."""

    delay: float
    bounced: bool = False


@dataclass(frozen=True, slots=True)
class Returned:
    """The job is handed back at once, uncounted; no lower place in the queue is filled again with it (0: unknown)."""

    place: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """The job is over without success: "cancelled", or "discarded"."""

    state: str
    duration: float
    error: dict[str, Any]


Outcome = Succeeded | Committed | Retried | Failed | PutOff | Returned | Ended


def describe(error: BaseException, attempt: int, cause: str | None = None) -> dict[str, Any]:
    """Return what is kept of an error: JSON that PostgreSQL takes, of bounded size."""
    kind = type(error)
    try:
        message = str(error)
    except Exception as broken:  # noqa: BLE001 - a handler's exception may be broken as well
        message = f"(its message could not be made: {type(broken).__name__})"
    lines = "".join(traceback.format_exception(kind, error, error.__traceback__, limit=-40))
    return {
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "attempt": attempt,
        "type": kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}",
        "message": _storable(message[:MESSAGE]),
        "traceback": _storable(lines[-TRACEBACK:]),
        "cause": cause,
    }


def _storable(text: str) -> str:
    """Replace what no text of PostgreSQL can hold: NUL, and halves of surrogate pairs."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def judge(
    error: BaseException, attempt: int, policy: Policy, *, hook: bool, duration: float, told: bool = False
) -> Outcome:
    """Decide what follows from what a handler raised; told: whether we have told it to end."""
    if isinstance(error, Snooze):
        return PutOff(min(error.seconds, MAX_PAUSE))
    if isinstance(error, JobInterrupted) and told:
        return Returned()
    if isinstance(error, JobCancelled):
        return Ended("cancelled", duration, describe(error, attempt, "cancelled"))
    record = describe(error, attempt, "timeout" if isinstance(error, JobTimeout) else None)
    if isinstance(error, JobTimeout):
        record["message"] = f"still running after {policy.timeout:g} s"
    allowed = isinstance(error, Interrupt) or policy.retry.allows(error)
    if not allowed or attempt >= policy.max_attempts:
        return Failed(record, hook)
    return Retried(_pause(error, attempt, policy), record)


def _pause(error: BaseException, attempt: int, policy: Policy) -> float:
    """Return the pause a handler asks for, if it is one the database can add to its clock, or else the policy's."""
    # A subclass may have forgotten to call TransientError.__init__.
    asked: object = getattr(error, "retry_after", None) if isinstance(error, TransientError) else None
    if isinstance(asked, int) or (isinstance(asked, float) and math.isfinite(asked)):
        return min(max(0.0, asked), MAX_PAUSE)
    return policy.retry.delay(attempt)
