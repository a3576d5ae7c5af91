"""What became of a run."""

from dataclasses import dataclass
from typing import Any


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
