"""Keeps the last log lines of the running job, to be stored if its attempt fails; with job_logs = all, in any case."""

import json
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from qworker.context import RunningJob
from qworkerd.log.line_ring import MAX_LINE, RING_BYTES, LineRing, Lines
from qworkerd.log.render import as_json

#: The size of the lines of an attempt together (bytes of JSON).
MAX_SIZE: Final = 32_768
#: What each line would repeat: it is stored with the job, or concerns the process.
_LEFT_OUT: Final = frozenset({"job", "task", "attempt", "queue", "duration", "role", "worker", "pid", "dropped"})


class JobLines:
    """The lines of one attempt. A success costs nothing but what each line costs.

    Other threads of the handler may add lines at the same time.
    """

    def __init__(self) -> None:
        #: Whether lines are kept.
        self.enabled = False
        #: The attempt that has lines.
        self.owner: RunningJob | None = None
        self._ended: RunningJob | None = None
        self._ring = LineRing(memoryview(bytearray(RING_BYTES)))

    def attach(self, ring: LineRing) -> None:
        """Keep the lines in shared memory from now on, where they survive this process."""
        self._ring = ring

    def stop(self) -> None:
        """Keep no more lines; called in a process that a handler has forked, whose parent keeps its own."""
        self.enabled = False

    def add(self, job: RunningJob, event: Mapping[str, object], line: bytes | None = None) -> None:
        """Keep a complete and redacted event of a job; forget the lines of earlier attempts.

        line: the event as a line of JSON, if it is known.
        """
        if not self.enabled:
            return
        if job is not self.owner:
            owner = self.owner or self._ended
            if owner is not None and (job is owner or job.started < owner.started):
                return  # the job has ended, or a thread was left behind by an earlier one
            self.owner = job
            self._ring.begin(job.id, job.started)
        if line is None or len(line) > MAX_LINE:
            line = as_json({key: value for key, value in event.items() if key not in _LEFT_OUT}, MAX_LINE)
        self._ring.write(line)

    def pop(self, job: RunningJob) -> dict[str, Any]:
        """Return the lines of an attempt as fields of its error record: `logs`; `logs_dropped` if some are not kept.

        Lines that it adds later are not kept.
        """
        if job is not self.owner:
            return {}
        self.owner, self._ended = None, job
        return as_fields(self._ring.read(job.id, job.started))


#: The lines of this process, which runs one job at a time.
job_lines = JobLines()


def as_fields(lines: Lines | None) -> dict[str, Any]:
    """Return lines as fields of an error record, of limited size and of values that PostgreSQL can store."""
    if lines is None:
        return {}
    found, left = deque[Any](), MAX_SIZE
    for line in reversed(lines.lines):
        event, size = _decode(line)
        left -= size
        if left < 0:
            break
        found.appendleft(event)
    dropped = lines.dropped + len(lines.lines) - len(found)
    return {"logs": list(found)} | ({"logs_dropped": dropped} if dropped else {})


def _decode(line: bytes) -> tuple[Any, int]:
    """Return a line without what is stored with its job, and its size (bytes of JSON)."""
    try:
        event = json.loads(line)
        kept = {key: value for key, value in event.items() if key not in _LEFT_OUT}
    except (ValueError, AttributeError, RecursionError):  # the process that has written it was damaged
        return {"event": "a line that cannot be read"}, len(line)
    left_out = sum(len(f"{key}{value}") + 6 for key, value in event.items() if key in _LEFT_OUT)
    return _storable(kept), len(line) - left_out


def _storable(value: Any) -> Any:
    """Return a value without the characters that jsonb rejects: NUL and surrogates."""
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_storable(key): _storable(part) for key, part in value.items()}
    return [_storable(part) for part in value] if isinstance(value, list) else value
