"""What runs around every job, as Django does it around a request: connections, queries, language and time zone."""

import functools
import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from django.conf import settings
from django.db import connections, reset_queries
from django.utils import timezone, translation
from psycopg.pq import TransactionStatus

from qworker.context import RunningJob
from qworker.errors import InvalidOperation

_log = logging.getLogger("qworker.django")


def around_job(job: RunningJob, call_next: Callable[[], Any]) -> Any:
    """Run a job with usable connections, no recorded queries, and the language and time zone of the settings.

    Raises InvalidOperation if the handler returns inside atomic(), or after a BEGIN: its work is rolled back.
    """
    reset_queries()
    close_unusable_connections()
    callers = _in_transactions()
    try:
        # What a handler activates ends with it, and what a test has activated around it is there again afterwards.
        with translation.override(settings.LANGUAGE_CODE), timezone.override(None):
            result = call_next()
    except BaseException as error:
        if _in_transactions().keys() - callers.keys():
            # The frames keep a generator that yielded inside a block. If it were closed during a later job, the end of
            # its block would end one of that job.
            traceback.clear_frames(error.__traceback__)
            end_transactions(f"job {job.id} ({job.task})", callers)
        raise
    else:
        if left := end_transactions(f"job {job.id} ({job.task})", callers):
            raise InvalidOperation(
                f"{job.task} returned inside atomic() of the database {left[0]!r}, and its work was rolled back: leave "
                "the block before the handler returns; exhaust or close a generator that yields inside a block"
            )
        return result
    finally:
        close_unusable_connections()


@contextmanager
def receivers(what: str) -> Iterator[None]:
    """End the transactions that receivers of a signal or a hook leave open; what: their name for the log."""
    callers = _in_transactions()
    try:
        yield
    finally:
        end_transactions(what, callers)


def around_hook(hook: Any) -> Any:
    """Return a hook that has usable connections, also in the thread of a worker that reports."""

    @functools.wraps(hook)
    def call(*args: Any) -> Any:
        close_unusable_connections()
        try:
            with receivers(f"hook {getattr(hook, '__qualname__', hook)}"):
                return hook(*args)
        finally:
            close_unusable_connections()

    return call if callable(hook) else hook  # which is refused


def end_transactions(what: str, callers: dict[int, Any]) -> list[str]:
    """Close the connections on which code has left atomic() open, or a transaction begun by BEGIN; return the aliases.

    Django closes none of them, and all that follows would be written into this transaction. In manual transaction mode
    what was not committed is rolled back without a word, as after a request.
    """
    left = [wrapper for key, wrapper in _in_transactions().items() if key not in callers]
    found = [wrapper for wrapper in left if wrapper.in_atomic_block or wrapper.autocommit]
    for wrapper in found:
        _log.warning("%s ended inside atomic() of the database %r: its transaction is rolled back", what, wrapper.alias)
    aliases = [wrapper.alias for wrapper in found]
    for wrapper in left:
        # close() inside a block, or a second time, only marks the connection.
        wrapper.in_atomic_block = wrapper.closed_in_transaction = False
        wrapper.close()
    return aliases


def _in_transactions() -> dict[int, Any]:
    """Return the connections inside atomic(), or in a transaction that a statement has begun."""
    return {id(wrapper): wrapper for wrapper in connections.all(initialized_only=True) if _in_transaction(wrapper)}


def _in_transaction(wrapper: Any) -> bool:
    if wrapper.in_atomic_block or not isinstance(conn := wrapper.connection, psycopg.Connection):
        return bool(wrapper.in_atomic_block)
    return conn.pgconn.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR)


def close_unusable_connections() -> None:
    """Close connections that are broken or past CONN_MAX_AGE, except those inside atomic(): a test's, for instance."""
    for wrapper in connections.all(initialized_only=True):
        if not wrapper.in_atomic_block:
            wrapper.close_if_unusable_or_obsolete()
