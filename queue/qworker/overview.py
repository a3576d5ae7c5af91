"""Reads what there is besides single jobs: queues, errors, nodes, schedules, and what was done by hand."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Unpack

import psycopg

from qworker.ambient import Ambient
from qworker.audit import Audit, AuditEntry, AuditQuery
from qworker.db.drivers import rows
from qworker.db.local import setting
from qworker.db.pool import Pool
from qworker.db.statements import load
from qworker.decoding import decode_object
from qworker.error_groups import MAX_COUNTED, ErrorGroup, ErrorGroups
from qworker.filters import Filter
from qworker.job import JobState, to_datetime
from qworker.queues import QueuePause, Queues, QueueStatus, queue_pause_of
from qworker.status import NodeStatus, ScheduleStatus, pause_of

#: A table of up to EXACT pages is counted, and of a larger one SAMPLED pages; of a queue, up to FEW available jobs.
EXACT, SAMPLED, FEW = 8_000, 2_000, 1_000
#: The time for what is counted of a larger one (seconds).
WALK_TIMEOUT = 0.12


class Overview:
    """The base of `Admin`: what can be read of one schema. What is returned is committed."""

    def __init__(self, pool: Pool, ambient: Ambient) -> None:
        #: The connections of the application.
        self.pool = self._pool = pool
        self._ambient = ambient
        self._statements = load("overview", pool.schema)
        self._queues = Queues(pool.schema)
        self._audit = Audit(pool.schema)
        self._errors = ErrorGroups(pool.schema)

    def audit(self, *, limit: int = 50, **wanted: Unpack[AuditQuery]) -> list[AuditEntry]:
        """Return the actions that were taken by hand, newest first; they are kept for 400 days.

        wanted: what they must match, see `AuditQuery`. limit: at most 1,000.
        """
        with self._pool.connection(None) as conn:
            return self._audit.find(conn, limit=limit, **wanted)

    def audit_of_error_group(
        self, fingerprint: str, filters: Iterable[str] = (), *, limit: int = 50
    ) -> list[AuditEntry]:
        """Return what was done to a group of errors, and the operations with one of these filters, newest first."""
        wanted = [AuditQuery(error=fingerprint), *(AuditQuery(filter=text) for text in dict.fromkeys(filters))]
        with self._pool.connection(None) as conn:
            found = [entry for each in wanted for entry in self._audit.find(conn, limit=limit, **each)]
        return sorted(found, key=lambda entry: -entry.id)[:limit]

    def sizes(self) -> dict[str, dict[JobState, int]]:
        """Return the number of jobs of each queue in each state, without those in the history.

        It reads the whole table: of ten million jobs in several seconds. `queues` estimates instead.
        """
        sizes: dict[str, dict[JobState, int]] = {}
        for row in self._read("sizes"):
            sizes.setdefault(row.queue, {})[JobState(row.state)] = row.jobs
        return sizes

    def queues(self) -> list[QueueStatus]:
        """Return the queues that hold jobs or are served by a node, ordered by name.

        Of a table of more than 64 MB the numbers are estimates; what runs, and what waits while it is little, is
        counted if this takes no longer than WALK_TIMEOUT.
        """
        return [
            QueueStatus(
                name=row.queue,
                jobs={JobState(state): count for state, count in decode_object(row.jobs).items()},
                oldest_age=row.oldest_age,
                nodes=tuple(row.nodes),
                paused=None if row.paused_at is None else queue_pause_of(queue=row.queue, **_pause(row)),
                exact=row.exact,
            )
            for row in self._read_queues({"exact": EXACT, "sampled": SAMPLED, "few": FEW})
        ]

    def _read_queues(self, parameters: Mapping[str, Any]) -> list[Any]:
        """Return the rows; if counting takes long because an old snapshot keeps dead entries, without it."""
        if self._ambient.default() is not None:  # a test, whose transaction keeps its settings
            return self._read("queues", {**parameters, "walk": True})
        with self._pool.connection(None) as conn:
            try:
                with setting(conn, "statement_timeout", f"{WALK_TIMEOUT:g}s"):
                    return rows(conn, self._statements["queues"], {**parameters, "walk": True})
            except psycopg.errors.QueryCanceled:
                return rows(conn, self._statements["queues"], {**parameters, "walk": False})

    def size(self, queue: str, *states: JobState) -> int:
        """Return the number of jobs of a queue in these states."""
        (row,) = self._read("size", {"queue": queue, "states": [state.value for state in states]})
        return int(row.jobs)

    def paused(self, *queues: str) -> list[QueuePause]:
        """Return the paused ones of these queues, or of all if none is named."""
        with self._pool.connection(None) as conn:
            return self._queues.paused(conn, queues or None)

    def error_groups(self, **wanted: Any) -> list[ErrorGroup]:
        """Return groups of errors, those that occurred last first; see `ErrorGroups.find` for what can be wanted."""
        with self._pool.connection(None) as conn:
            return self._errors.find(conn, **wanted)

    def error_group(self, fingerprint: str, **options: Any) -> ErrorGroup:
        """Return a group of errors; raises ErrorGroupNotFound, and ValueError if it is not 16 hexadecimal digits."""
        with self._pool.connection(None) as conn:
            return self._errors.get(conn, fingerprint, **options)

    def count_failed_of(self, fingerprint: str, limit: int = MAX_COUNTED) -> int:
        """Return the number of jobs of a group of errors that are failed now; counting stops at `limit`."""
        with self._pool.connection(None) as conn:
            return self._errors.count_failed(conn, fingerprint, limit)

    def jobs_of_error_group(self, fingerprint: str) -> Filter:
        """Return a filter for the jobs of a group of errors, for `Search` and `Operations`; raises LookupError."""
        known = self.error_group(fingerprint).fingerprint
        with self._pool.connection(None) as conn:
            return self._errors.jobs(conn, known)

    def nodes(self) -> list[NodeStatus]:
        """Return the nodes that have not been declared dead."""
        return [
            NodeStatus(
                id=row.id,
                name=row.name,
                version=row.version,
                queues=tuple(map(str, row.queues)),
                worker_count=row.worker_count,
                idle=row.idle,
                started_at=_at(row.started_at),
                heartbeat_at=_at(row.heartbeat_at),
                heartbeat_age=row.heartbeat_age,
                lease_seconds=row.lease_seconds,
                state=decode_object(row.state),
                paused=None if row.paused_at is None else pause_of(**_pause(row)),
            )
            for row in self._read("nodes")
        ]

    def schedules(self) -> list[ScheduleStatus]:
        """Return the schedules stored in the database, with their last ticks."""
        return [
            ScheduleStatus(
                name=row.name,
                task=row.task,
                expression=row.expression,
                timezone=row.timezone,
                last_tick=to_datetime(row.last_tick),
                nodes=tuple(row.nodes),
                paused=None if row.paused_at is None else pause_of(**_pause(row)),
                ticks_after=to_datetime(row.ticks_after),
            )
            for row in self._read("schedules")
        ]

    def _read(self, name: str, parameters: Mapping[str, Any] | None = None) -> list[Any]:
        """Return the rows as named tuples."""
        with self._pool.connection(self._ambient.default()) as conn:
            return rows(conn, self._statements[name], parameters)


def _at(epoch: float) -> datetime:
    found = to_datetime(epoch)
    assert found is not None  # noqa: S101
    return found


def _pause(row: Any) -> dict[str, Any]:
    """Return the columns of a row that say since when it is paused, by whom and why."""
    return {"paused_at": row.paused_at, "paused_by": row.paused_by, "pause_reason": row.pause_reason}
