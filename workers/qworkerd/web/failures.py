"""The error of an attempt as pages show it. A record may have been edited by hand, and lack anything."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from qworker.tracebacks import application_part
from qworkerd.web import texts

#: The digits of a fingerprint.
FINGERPRINT = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Failure:
    """The error of an attempt."""

    #: The class of the exception.
    type: str
    message: str
    #: The number of the attempt; None if it was not stored.
    attempt: Any
    at: datetime | None
    #: The group to which it belongs.
    fingerprint: str | None
    #: The traceback without the frames of libraries, and the whole one if that is longer.
    traceback: str
    whole: str | None
    #: Of a worker that died: what it did, seconds that the attempt had run, peak memory (MiB) and processor time.
    phase: str | None
    ran: float | None
    memory: Any
    cpu: Any


def failure_of(record: Mapping[str, Any]) -> Failure:
    """Return what a page shows of a record in `Job.errors`."""
    whole = str(record.get("traceback") or "").strip()
    ours = application_part(whole).strip()
    fingerprint, ran = str(record.get("fingerprint") or ""), record.get("ran")
    return Failure(
        type=str(record.get("type") or record.get("unreadable") or texts.errors.UNTYPED),
        message=str(record.get("message") or record.get("text") or ""),
        attempt=record.get("attempt"), at=_time(record.get("at")),
        fingerprint=fingerprint if FINGERPRINT.fullmatch(fingerprint) else None,
        traceback=ours, whole=None if ours == whole else whole,
        phase=str(record["phase"]) if record.get("phase") else None,
        ran=float(ran) if isinstance(ran, (int, float)) and not isinstance(ran, bool) else None,
        memory=record.get("maxrss_mib"), cpu=record.get("cpu"),
    )  # fmt: skip


def _time(value: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
