"""Warns of jobs that were enqueued in a SQLAlchemy session whose transaction then ended without a commit.

Flask-SQLAlchemy closes the session at the end of each application context, which rolls back silently. An application
that calls rollback(), raises an exception, or answers a request with an error has rolled back on purpose.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import flask

from qworker.db.drivers import raw
from qworker.enqueue import Enqueuer
from qworker.job import Job
from qworker.options import UNSET
from qworker.payload import Parameters, Row
from qworker.spec import JobSpec

_log = logging.getLogger("qworker.flask")

#: The name in `flask.g`, and in the `info` of a session.
_NAME = "qworker_uncommitted"
#: The first status of a response that reports an error.
_BAD_REQUEST = 400


@dataclass
class _Context:
    """An application context in which jobs were enqueued."""

    #: The tasks of jobs that are lost.
    lost: list[str] = field(default_factory=list)
    #: Whether an exception or an error response explains that; None: the context has not ended.
    failed: bool | None = None
    #: Whether the request was answered with an error.
    refused: bool = False

    def end(self, *, failed: bool) -> None:
        self.failed = failed or self.refused
        self.report()

    def report(self) -> None:
        """Warn of lost jobs, once."""
        if self.failed is None or not self.lost:
            return
        if not self.failed:
            _log.warning(
                "%s enqueued in the session %s rolled back, because the session was closed without a commit (%s): call "
                "db.session.commit() after enqueueing, or enqueue with .using(None), which commits the job at once",
                *(("a job", "was") if len(self.lost) == 1 else ("jobs", "were")), ", ".join(dict.fromkeys(self.lost)),
            )  # fmt: skip
            self.failed = True
        self.lost.clear()


@dataclass
class _Pending:
    """Jobs that are neither committed nor rolled back."""

    task: str
    context: _Context
    #: The transaction of the session in which they were enqueued: the outermost one, or that of a savepoint.
    transaction: Any

    def is_within(self, transaction: Any) -> bool:
        own = self.transaction
        while own is not None and own is not transaction:
            own = own.parent
        return own is not None


class _Watch:
    """Follows the transactions of a session."""

    def __init__(self, session: Any) -> None:
        from sqlalchemy import event

        self.pending: list[_Pending] = []
        event.listen(session, "after_commit", self._committed)
        event.listen(session, "after_rollback", self._rolled_back)
        event.listen(session, "after_transaction_end", self._ended)

    def _committed(self, session: Any) -> None:
        # The event is also that of a savepoint.
        if session.get_nested_transaction() is None:
            self.pending.clear()

    def _rolled_back(self, session: Any) -> None:
        """Forget the jobs of a rollback that the application has called; closing a session does not call this."""
        transaction = session.get_nested_transaction() or session.get_transaction()
        self.pending = [job for job in self.pending if not job.is_within(transaction)]

    def _ended(self, _session: Any, transaction: Any) -> None:
        if transaction.parent is None:
            lost, self.pending = self.pending, []
            for job in lost:
                job.context.lost.append(job.task)
            for job in lost:
                job.context.report()


class WatchingEnqueuer(Enqueuer):
    """Enqueues jobs, and watches those that join a session inside of an application context."""

    def one(self, spec: JobSpec, args: Mapping[str, Any], conn: Any = UNSET) -> Job:
        """Enqueue one job."""
        job = super().one(spec, args, conn)
        self._watch(spec.task, conn)
        return job

    def many(
        self, spec: JobSpec, parameters: Parameters, rows: Iterable[Row], conn: Any = UNSET, *, ids: bool = False
    ) -> int | list[int]:
        """Enqueue a job for each row."""
        stored = super().many(spec, parameters, rows, conn, ids=ids)
        if stored:
            self._watch(spec.task, conn)
        return stored

    def _watch(self, task: str, conn: Any) -> None:
        if not flask.has_app_context():
            return
        session = self._session(conn)
        transaction = None if session is None else session.get_nested_transaction() or session.get_transaction()
        if transaction is None:
            return
        watch = session.info.get(_NAME)
        if watch is None:
            watch = session.info[_NAME] = _Watch(session)
        if _NAME not in flask.g:
            setattr(flask.g, _NAME, _Context())
        watch.pending.append(_Pending(task, getattr(flask.g, _NAME), transaction))

    def _session(self, conn: Any) -> Any:
        """Return the session that carries the job; None if it is not in one, or in that of a test."""
        if conn is UNSET:
            session, caller = self._ambient.open_session(), self._ambient.joined(None)
            if session is None or caller is None or self._ambient.bound is not None:
                return None
            return session if raw(caller) is session.connection().connection.driver_connection else None
        if hasattr(conn, "session") and not hasattr(conn, "get_bind"):
            conn = conn.session  # the extension object of Flask-SQLAlchemy
        if hasattr(conn, "registry"):
            conn = conn()  # a scoped_session
        return conn if hasattr(conn, "get_bind") else None


def init_app(app: flask.Flask) -> None:
    """Watch the contexts of a Flask application."""
    app.teardown_appcontext(_end_context)
    app.after_request(_note_refusal)


def _note_refusal(response: flask.Response) -> flask.Response:
    if response.status_code >= _BAD_REQUEST and _NAME in flask.g:
        flask.g.get(_NAME).refused = True
    return response


def _end_context(error: BaseException | None) -> None:
    context = flask.g.get(_NAME)
    if context is not None:
        context.end(failed=error is not None)
