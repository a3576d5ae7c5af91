"""The statements for the stored schedules and their ticks."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg

from qworker.actor import current_actor
from qworker.claims import WriteSuppressed
from qworker.db.statements import DEFAULT_SCHEMA, Database, Statements
from qworker.options import UNSET, Options
from qworker.queues import pause_parameters
from qworker.spec import JobSpec

#: How long a request is known that must not enqueue a second job (seconds).
ONCE_PERIOD = 3_600.0


@dataclass(frozen=True, slots=True)
class StoredSchedule:
    """A schedule as it was declared last."""

    name: str
    expression: str
    timezone: str
    #: The last tick, or when the schedule was first declared or last resumed; and the database's clock (since 1970).
    last_tick: float
    #: Whether its ticks are skipped.
    paused: bool
    at: float


@dataclass(frozen=True, slots=True)
class Tick:
    """A tick that this node has enqueued or recorded."""

    #: The job; None if no job was stored because another one holds its unique key.
    job: int | None
    #: The job that holds the key, if known.
    holder: int | None


def tick_of(task: str, defaults: Options, once: str | None = None) -> tuple[JobSpec, str | None]:
    """Return the job of a schedule, which is what the task's own enqueue would make, and its unique key.

    once: see `once_options`.
    """
    spec = JobSpec.of(task, defaults, Options() if once is None else once_options(defaults, once))
    return spec, spec.key_of({})


def once_options(defaults: Options, once: str) -> Options:
    """Return the options by which the same request, sent twice within an hour, enqueues one job.

    once: a random string of the request. A task that has a unique key keeps it: it already has this effect.
    """
    if defaults.unique or defaults.unique_for is not UNSET:
        return Options()
    return Options(unique=f"once:{once}", unique_for=ONCE_PERIOD)


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
            (stored.expression, stored.timezone) == (expression, timezone)
            and stored.last_tick < tick
            and not stored.paused
            for stored in self.find(database, [name])
        )

    def run(self, database: Database, spec: JobSpec, key: str | None, *, name: str) -> Tick:
        """Enqueue the job of a schedule now, and record who has asked for it; its ticks stay as they are.

        Raises LockNotAvailable if another session has just taken the key, and WriteSuppressed as `tick` does.
        """
        actor = current_actor()
        meta = {"cron": name, "tick": datetime.now(UTC).isoformat(timespec="seconds"), "run_by": actor.name}
        job = {"args": "{}", "meta": json.dumps(meta), "key": key}
        rows = self._rows(database, "run", **spec.parameters | actor.parameters | job | {"name": name})
        for job_id, held, _ in rows:
            return Tick(job=None, holder=job_id) if held else Tick(job=job_id, holder=None)
        if key is None:
            raise WriteSuppressed
        raise psycopg.errors.LockNotAvailable(f"another session has just taken the key of schedule {name!r}: try again")

    def pause(self, database: Database, names: Iterable[str], reason: str | None = None) -> list[str]:
        """Skip the ticks of schedules from now on; return those that were not paused before."""
        return sorted(self._column(database, "pause", names=list(names), **pause_parameters(reason, None)))

    def resume(self, database: Database, names: Iterable[str]) -> list[str]:
        """Enqueue the next ticks of schedules again; return those that were paused."""
        return sorted(self._column(database, "resume", names=list(names), **current_actor().parameters))

    def delete_unused(self, database: Database) -> int:
        """Delete schedules that no live node declares."""
        return self._count(database, "delete_unused")
