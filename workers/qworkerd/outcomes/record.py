"""The record of an error, as stored with its job."""

from datetime import UTC, datetime
from typing import Any

from qworker.fingerprint import fingerprint, normalize, to_hex

#: The type of the error of an attempt whose worker has died.
DIED = "WorkerDied"
#: The release of the application, which is part of the group of each error.
_release: str | None = None


def set_release(release: str | None) -> None:
    """Set the release of the application for this process and the children that it forks."""
    global _release  # noqa: PLW0603 - one for the process, like its environment
    _release = release


def error_record(kind: str, message: str, cause: str | None, *, traceback: str = "", **facts: Any) -> dict[str, Any]:
    """Return the record of an error that has occurred now; kind is the class name of an exception or a similar name."""
    return {"at": now(), "type": kind, "message": message, "traceback": traceback, "cause": cause, **facts}


def identify(
    record: dict[str, Any], task: str, *, kind: str | None = None, message: str | None = None, frame: str | None = None
) -> dict[str, Any]:
    """Add to the record of a failed attempt the group of errors to which it belongs; return the record.

    kind, message: those by which errors are grouped, if they are not those of the record. frame: where it was raised.
    """
    kind, message = kind or record["type"], record["message"] if message is None else message
    record["fingerprint"] = to_hex(fingerprint(task, kind, message, frame))
    record["group"] = {"type": kind, "message": normalize(message), "frame": frame}
    if _release is not None:
        record["group"]["release"] = _release
    return record


def now() -> str:
    """Return the current time in the format of error records."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
