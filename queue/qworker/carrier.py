"""The trace context that a job carries from where it is enqueued to its handler: a part of its `meta`."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from qworker.job import Job
from qworker.options import UNSET
from qworker.payload import Parameters, Row
from qworker.spec import JobSpec
from qworker.task import Enqueuing

#: The key in `meta`.
TRACE = "trace"
#: Maximum size of the context, as JSON (bytes).
MAX_CARRIER = 2_048
#: What is left out of a larger one, in this order; the rest is the context itself.
_EXPENDABLE = (("baggage", "sentry-baggage"), ("tracestate",))


@dataclass(slots=True)
class Message:
    """What is enqueued, while it is enqueued."""

    #: The context to carry: header names and values. Empty: none.
    carrier: Mapping[str, str]
    #: The job, once it is stored, or the number of jobs.
    stored: Job | int | None = None


class CarryingEnqueuer:
    """Stores jobs with a trace context. A subclass says what surrounds the storing."""

    def __init__(self, inner: Enqueuing) -> None:
        """Take what stores the jobs."""
        self._inner = inner

    @contextmanager
    def publish(self, spec: JobSpec, *, many: bool) -> Iterator[Message]:
        """Return the context to carry; called around the storing of a job, or of many."""
        raise NotImplementedError

    def one(self, spec: JobSpec, args: Mapping[str, Any], conn: Any = UNSET) -> Job:
        """Enqueue one job."""
        with self.publish(spec, many=False) as message:
            message.stored = job = self._inner.one(carry(spec, message.carrier), args, conn)
        return job

    async def aone(self, spec: JobSpec, args: Mapping[str, Any], conn: Any = UNSET) -> Job:
        """Enqueue one job without blocking the event loop."""
        with self.publish(spec, many=False) as message:
            message.stored = job = await self._inner.aone(carry(spec, message.carrier), args, conn)
        return job

    def many(
        self, spec: JobSpec, parameters: Parameters, rows: Iterable[Row], conn: Any = UNSET, *, ids: bool = False
    ) -> int | list[int]:
        """Enqueue a job for each row; all carry the same context."""
        with self.publish(spec, many=True) as message:
            found = self._inner.many(carry(spec, message.carrier), parameters, rows, conn, ids=ids)
            message.stored = found if isinstance(found, int) else len(found)
        return found


def carry(spec: JobSpec, carrier: Mapping[str, str]) -> JobSpec:
    """Return the specification of a job that carries a context, beside what its meta holds already."""
    kept = dict(carrier)
    for names in _EXPENDABLE:
        if len(json.dumps(kept)) > MAX_CARRIER:
            kept = {name: value for name, value in kept.items() if name not in names}
    if not kept or len(json.dumps(kept)) > MAX_CARRIER:
        return spec
    meta = json.loads(spec.meta or "{}")
    return replace(spec, meta=json.dumps(meta | {TRACE: meta.get(TRACE, {}) | kept}))
