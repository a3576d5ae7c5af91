"""The record of an error, as stored with its job."""

from datetime import UTC, datetime
from typing import Any


def error_record(kind: str, message: str, cause: str | None, *, traceback: str = "", **facts: Any) -> dict[str, Any]:
    """Return the record of an error that happens now; kind is the name of an exception, or of what happened."""
    return {"at": now(), "type": kind, "message": message, "traceback": traceback, "cause": cause, **facts}


def now() -> str:
    """Return the time in the format of the records."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
