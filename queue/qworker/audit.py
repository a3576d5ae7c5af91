"""The audit: who retried, cancelled, paused or edited what, when and from where."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict, Unpack

from psycopg.types.json import Jsonb

from qworker.actor import current_actor
from qworker.db.statements import DEFAULT_SCHEMA, Database, Statements
from qworker.decoding import decode_object
from qworker.job import to_datetime

#: Maximum number of entries that are read at once.
MAX_ENTRIES = 1000
#: What entries have keys for, by the key of a query, in the order of the SQL function audit_keys.
_KEYS = {
    "job": "jobs",
    "error": "errors",
    "schedule": "schedules",
    "queue": "queues",
    "node": "nodes",
    "filter": "filter",
    "actor": "actor",
}
#: How many of them an index serves together.
_INDEXED = 2


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One action. It is stored by the statement that took it: either both are committed, or neither."""

    #: Increases with each entry; of two entries that were stored at the same time, either may be first.
    id: int
    #: When it was taken, by the database's clock.
    at: datetime
    #: The signed-in user if the caller named one, or else user@host of its process.
    actor: str
    #: The role of the database session, as the server knows it; with that of SET ROLE if it differs.
    role: str
    #: Where it was taken: api, cli, web, top, django or operation.
    via: str
    #: The address of the user; None unless the caller named it.
    address: str | None
    #: The kind of thing and what was done: "job.retry", "queue.pause".
    action: str
    #: What it was done to: {"jobs": [1, 2]}, {"queues": ["mail"]}, {"schedules": ["report"]}.
    target: Mapping[str, Any]
    #: The number of jobs that were changed; None if the action is not one on jobs.
    jobs: int | None
    #: Why, in the user's words.
    note: str | None


class AuditQuery(TypedDict, total=False):
    """What entries must match; None is the same as no key."""

    #: The job that was changed.
    job: int | None
    #: The queue that was changed.
    queue: str | None
    #: The schedule that was changed.
    schedule: str | None
    #: The name of the node that was changed.
    node: str | None
    #: The fingerprint of the group of errors that was changed.
    error: str | None
    #: The filter of the operation that was created.
    filter: str | None
    #: Who took the action.
    actor: str | None
    #: "job.retry", or "job" for everything that was done to jobs.
    action: str | None
    #: From when on it was taken, an aware datetime.
    since: datetime | None
    #: Until when it was taken.
    until: datetime | None
    #: The last id of the page before.
    below: int | None


class Audit(Statements):
    """The statements for the audit."""

    __slots__ = ()

    def __init__(self, schema: str = DEFAULT_SCHEMA) -> None:
        super().__init__("audit", schema)

    def find(self, database: Database, *, limit: int = 50, **wanted: Unpack[AuditQuery]) -> list[AuditEntry]:
        """Return entries, newest first, that match everything that is given; limit: at most 1,000."""
        given = {kind: value for key, kind in _KEYS.items() if (value := wanted.get(key)) is not None}
        parameters: dict[str, Any] = {
            "action": wanted.get("action"), "since": _epoch(wanted.get("since")), "until": _epoch(wanted.get("until")),
            "below": wanted.get("below"), "limit": min(limit, MAX_ENTRIES),
        }  # fmt: skip
        if not given:
            statement = "find" if parameters["action"] is None else "find_by_action"
            return self._records(database, statement, _entry, **parameters)
        (kind, name), (other_kind, other_name) = [*given.items(), (None, None)][:2]
        job, actor = given.pop("jobs", None), given.pop("actor", None)
        rest = {kind: value if kind == "filter" else [value] for kind, value in given.items()}
        return self._records(
            database, "find_by_key", _entry, kind=kind, name=str(name), other_kind=other_kind,
            other_name=None if other_name is None else str(other_name), job=job, actor=actor,
            rest=Jsonb(rest) if rest else None, many=len(rest) + (job is not None) + (actor is not None) > _INDEXED,
            **parameters,
        )  # fmt: skip

    def of_request(self, database: Database, request: str) -> tuple[AuditEntry, bool] | None:
        """Return what a request has done, and whether it asked for the same; None if it has done nothing."""
        found = self._records(database, "of_request", _with_sameness, request=request)
        return found[0] if found else None

    def record(self, database: Database, action: str, target: Mapping[str, Any], jobs: int | None = None) -> None:
        """Record an action of the current actor, in the transaction that takes it.

        For what no statement of an action records: jobs that were enqueued by hand.
        """
        self._count(
            database, "record", action=action, target=Jsonb(target), jobs=jobs, **current_actor().parameters
        )  # fmt: skip

    def delete_old(self, database: Database) -> int:
        """Delete entries that are more than 400 days old, up to 2,000; return their number."""
        return int(self._scalar(database, "delete_old"))


def _entry(*, at: float, target: str, **columns: Any) -> AuditEntry:
    moment = to_datetime(at)
    assert moment is not None  # noqa: S101
    return AuditEntry(at=moment, target=decode_object(target), **columns)


def _with_sameness(*, same: bool, **columns: Any) -> tuple[AuditEntry, bool]:
    return _entry(**columns), same


def _epoch(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()
