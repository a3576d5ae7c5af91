"""The statements for the stored schedules and their ticks."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from qworker.claims import WriteSuppressed
from qworker.db.statements import DEFAULT_SCHEMA, Database, Statements
from qworker.spec import JobSpec


@dataclass(frozen=True, slots=True)
class StoredSchedule:
    """A schedule as it was declared last."""

    name: str
    expression: str
    timezone: str
    #: The last tick, or when the schedule was first declared, and the database's clock (seconds since 1970).
    last_tick: float
    at: float


@dataclass(frozen=True, slots=True)
class Tick:
    """A tick that this node has enqueued or recorded."""

    #: The job; None if no job was stored because another one holds its unique key.
    job: int | None
    #: The job that holds the key, if known.
    holder: int | None


class StoredSchedules(Statements):
    """The statements for schedules; each method is one statement and one commit."""

    __slots__ = ()

    def __init__(self, schema: str = DEFAULT_SCHEMA) -> None:
        super().__init__("schedules", schema)

    def declare(self, database: Database, node: int, *, name: str, task: str, expression: str, timezone: str) -> None:
        """Declare a schedule, unless a newer node has; raise WriteSuppressed if a trigger suppresses the change."""
        declared = self._count(
            database, "declare", node=node, name=name, task=task, expression=expression, timezone=timezone
        )
        if not declared and not self._rows(database, "declared_by_newer", node=node, name=name):
            raise WriteSuppressed

    def find(self, database: Database, names: Sequence[str]) -> list[StoredSchedule]:
        """Return the stored ones of the schedules with these names."""
        return self._records(database, "find", StoredSchedule, names=list(names))

    def tick(
        self,
        database: Database,
        spec: JobSpec,
        key: str | None,
        *,
        name: str,
        tick: float,
        expression: str,
        timezone: str,
        at: float | None = None,
    ) -> Tick | None:
        """Enqueue one tick; return None if another node has done so.

        key is the unique key of the job, or None. Raises LockNotAvailable if an uncommitted transaction has inserted
        the same key, and WriteSuppressed if a trigger suppresses the tick or its job; try again later.
        """
        schedule = {"name": name, "tick": tick, "expression": expression, "timezone": timezone}
        meta = {"cron": name, "tick": datetime.fromtimestamp(tick, UTC).isoformat()}
        job = {"args": "{}", "meta": json.dumps(meta), "key": key, "at": at}
        with database.transaction():
            rows = self._rows(database, "tick", **spec.parameters | schedule | job)
            if any(suppressed for _, _, suppressed, _ in rows):
                raise WriteSuppressed
        if not rows and self._is_pending(database, name, tick, expression, timezone):
            raise WriteSuppressed
        return next((Tick(job=job_id, holder=holder) for job_id, holder, *_ in rows), None)

    def _is_pending(self, database: Database, name: str, tick: float, expression: str, timezone: str) -> bool:
        """Return whether no node has recorded a tick, and the schedule is still the same."""
        return any(
            (stored.expression, stored.timezone) == (expression, timezone) and stored.last_tick < tick
            for stored in self.find(database, [name])
        )

    def delete_unused(self, database: Database) -> int:
        """Delete schedules that no live node declares."""
        return self._count(database, "delete_unused")
