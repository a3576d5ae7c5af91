"""The outcome of an attempt, and its encoding in shared memory, where it survives its worker."""

import json
import struct
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from qworker.job import JobState


@dataclass(frozen=True, slots=True)
class Completed:
    """The handler returned; result is JSON, or None."""

    duration: float
    result: str | None


@dataclass(frozen=True, slots=True)
class Committed:
    """The handler returned, and the end of its job was committed together with its work."""

    duration: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Session:
    """A server session that was lost during a commit, whose outcome is unknown."""

    #: The server process, and the suffix of the session's application_name.
    pid: int
    role: str


@dataclass(frozen=True, slots=True)
class Retried:
    """Another attempt follows after `delay` seconds, unless the lost session has committed."""

    delay: float
    error: dict[str, Any]
    lost: Session | None = None
    #: How long the handler ran (seconds); None if that is unknown.
    duration: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Failed:
    """No other attempt follows, unless the lost session has committed; hook: whether to enqueue the failure hook."""

    error: dict[str, Any]
    hook: bool
    lost: Session | None = None
    #: How many crashes to count.
    crashes: int = 0
    duration: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Snoozed:
    """The job runs again after `delay` seconds, and the attempt is not counted.

    unknown_task: the reason is that this worker does not know its task.
    """

    delay: float
    unknown_task: bool = False


@dataclass(frozen=True, slots=True)
class Released:
    """The job is released at once, and the attempt is not counted.

    seq: the lowest seq released with it; 0 if it is unknown.
    """

    seq: int = 0


@dataclass(frozen=True, slots=True)
class Terminated:
    """The job ended without success."""

    #: CANCELLED or DISCARDED.
    state: JobState
    duration: float
    error: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Crashed:
    """The worker died, possibly because of the job: attempt and crash are counted, and it runs again after `delay`."""

    delay: float
    error: dict[str, Any]
    duration: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Lost:
    """The job was lost, and is not known to be the cause: the loss is counted, and at `max_node_losses` it fails."""

    error: dict[str, Any]
    duration: float | None = field(default=None, compare=False)


#: The outcomes that may follow the death of a worker. They are never stored in the slot.
AfterDeath = Failed | Terminated | Crashed | Lost

Outcome = Completed | Committed | Retried | Failed | Snoozed | Released | Terminated

#: The types, by their number in memory.
_KINDS = (Completed, Committed, Retried, Failed, Snoozed, Released, Terminated)
_COMPLETED = _KINDS.index(Completed)
#: A completed job: its type and its duration, followed by its result.
_SUCCEEDED = struct.Struct("<Bd")


def without_logs(outcome: Outcome) -> Outcome:
    """Return an outcome without the log lines of its error, which are the largest part of it."""
    if not isinstance(outcome, Retried | Failed | Terminated) or "logs" not in outcome.error:
        return outcome
    return replace(outcome, error={key: value for key, value in outcome.error.items() if key != "logs"})


def dump(outcome: Outcome) -> bytes:
    """Encode an outcome for the slot: its type and its fields; a success stores its result without encoding it."""
    if isinstance(outcome, Completed):
        return _SUCCEEDED.pack(_COMPLETED, outcome.duration) + (outcome.result or "").encode()
    fields = json.dumps(asdict(outcome), ensure_ascii=False, separators=(",", ":"))
    return bytes([_KINDS.index(type(outcome))]) + fields.encode(errors="replace")


def load(record: bytes | None) -> Outcome | None:
    """Decode the outcome that a dead worker has stored; None if there is none, or it cannot be read."""
    if not record:
        return None
    try:
        kind = _KINDS[record[0]]
        if kind is Completed:
            _, duration = _SUCCEEDED.unpack_from(record)
            result = record[_SUCCEEDED.size :].decode()
            if result:
                json.loads(result)
            return Completed(duration, result or None)
        fields = json.loads(record[1:])
        if not isinstance(fields.get("error", {}), dict):
            return None
        if fields.get("lost"):
            fields["lost"] = Session(**fields["lost"])
        if "state" in fields:
            fields["state"] = JobState(fields["state"])
        return kind(**fields)
    except (struct.error, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
