"""The record of an error, as stored with its job."""

from datetime import UTC, datetime
from typing import Any


def error_record(kind: str, message: str, cause: str | None, *, traceback: str = "", **facts: Any) -> dict[str, Any]:
    """Return the record of an error that has occurred now; kind is the class name of an exception or a similar name."""
    return {"at": now(), "type": kind, "message": message, "traceback": traceback, "cause": cause, **facts}


def now() -> str:
    """Return the current time in the format of error records."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
