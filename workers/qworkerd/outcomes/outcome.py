"""What became of a run, and the form in which that survives its worker."""

import json
import struct
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Completed:
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
class Snoozed:
    """The job comes again after `delay` seconds, uncounted; bounced: because this worker does not know its task."""

    delay: float
    unknown_task: bool = False


@dataclass(frozen=True, slots=True)
class Released:
    """The job is handed back at once, uncounted; no lower place in the queue is filled again with it (0: unknown)."""

    seq: int = 0


@dataclass(frozen=True, slots=True)
class Terminated:
    """The job is over without success: "cancelled", or "discarded"."""

    state: str
    duration: float
    error: dict[str, Any]


Outcome = Completed | Committed | Retried | Failed | Snoozed | Released | Terminated

#: By their number in memory.
_KINDS = (Completed, Committed, Retried, Failed, Snoozed, Released, Terminated)
_SUCCEEDED = struct.Struct("<Bd")


def dump(outcome: Outcome) -> bytes:
    """Return an outcome as bytes for the slot: its kind and its fields; the result of a success as it is."""
    if isinstance(outcome, Completed):
        return _SUCCEEDED.pack(0, outcome.duration) + (outcome.result or "").encode()
    fields = json.dumps(asdict(outcome), ensure_ascii=False, separators=(",", ":"))
    return bytes([_KINDS.index(type(outcome))]) + fields.encode(errors="replace")


def load(record: bytes | None) -> Outcome | None:
    """Return the outcome that a dead worker has left; None if it left none, or nothing that can be read."""
    if not record:
        return None
    try:
        kind = _KINDS[record[0]]
        if kind is Completed:
            duration, result = _SUCCEEDED.unpack_from(record)[1], record[_SUCCEEDED.size :].decode()
            if result:
                json.loads(result)
            return Completed(duration, result or None)
        fields = json.loads(record[1:])
        if not isinstance(fields.get("error", {}), dict):
            return None
        if fields.get("lost"):
            fields["lost"] = Session(**fields["lost"])
        return kind(**fields)
    except (struct.error, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
