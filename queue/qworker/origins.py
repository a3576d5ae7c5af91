"""Where jobs come from: the trace context that they carry, and what is known of an attempt that has failed."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from qworker.db.drivers import Caller, rows
from qworker.db.statements import DEFAULT_SCHEMA, load
from qworker.decoding import decode_object


class Origin(NamedTuple):
    """The origin of a job."""

    #: The trace context: header names and values.
    carrier: Mapping[str, str] = {}
    #: The traceparent of the last attempt that failed; None if there is none.
    failed: str | None = None
    #: The schedule whose tick the job is.
    schedule: str | None = None
    #: Whether the job is the failure hook of the one from which all this is known.
    hook: bool = False

    @classmethod
    def of(cls, meta: Mapping[str, Any] | None, *, failed: str | None = None, hook: bool = False) -> "Origin":
        """Return the origin that is noted in the meta of a job, which any client may have written."""
        trace, schedule = (meta or {}).get("trace"), (meta or {}).get("cron")
        carrier = trace if isinstance(trace, dict) else {}
        return cls(
            {str(name): value for name, value in carrier.items() if isinstance(value, str)},
            failed,
            str(schedule) if schedule is not None else None,
            hook,
        )


class Origins:
    """The origins of the jobs that a worker has claimed, read for all of a claim at once."""

    def __init__(self, schema: str = DEFAULT_SCHEMA) -> None:
        self._sql = load("origins", schema)
        self._found: dict[int, Origin] = {}

    def read(self, database: Caller, ids: Sequence[int] | Iterable[int]) -> None:
        """Read the origins of jobs; those read before are forgotten."""
        self._found = {}
        self._found = {
            row.id: Origin.of(None if row.meta is None else decode_object(row.meta), failed=row.failed, hook=row.hook)
            for row in rows(database, self._sql["read"], {"ids": list(ids)})
        }

    def of(self, job_id: int) -> Origin:
        """Return the origin of a job of the last claim."""
        return self._found.get(job_id, _UNKNOWN)


_UNKNOWN = Origin()
