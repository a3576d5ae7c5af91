"""What runs around every job, as Django does it around a request: connections, queries, language and time zone."""

import logging
import traceback
from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import connections, reset_queries
from django.utils import timezone, translation

from qworker.context import RunningJob
from qworker.errors import InvalidOperation

_log = logging.getLogger("qworker.django")


def around_job(job: RunningJob, call_next: Callable[[], Any]) -> Any:
    """Run a job with usable connections, no recorded queries, and the language and time zone of the settings.

    Raises InvalidOperation if the handler returns inside atomic(): its work is rolled back.
    """
    reset_queries()
    close_unusable_connections()
    callers = _in_blocks()
    try:
        # What a handler activates ends with it, and what a test has activated around it is there again afterwards.
        with translation.override(settings.LANGUAGE_CODE), timezone.override(None):
            result = call_next()
    except BaseException as error:
        if _in_blocks().keys() - callers.keys():
            # The frames keep a generator that yielded inside a block. If it were closed during a later job, the end of
            # its block would end one of that job.
            traceback.clear_frames(error.__traceback__)
            end_blocks(job, callers)
        raise
    else:
        if left := end_blocks(job, callers):
            raise InvalidOperation(
                f"{job.task} returned inside atomic() of the database {left[0]!r}, and its work was rolled back: leave "
                "the block before the handler returns; exhaust or close a generator that yields inside a block"
            )
        return result
    finally:
        close_unusable_connections()


def end_blocks(job: RunningJob, callers: dict[int, Any]) -> list[str]:
    """Close the connections on which a handler has left atomic() open; return the aliases.

    Inside a block a connection is never closed, and all later jobs of the worker would write into this transaction.
    """
    left = [wrapper for key, wrapper in _in_blocks().items() if key not in callers]
    for wrapper in left:
        _log.warning(
            "job %s (%s) ended inside atomic() of the database %r: its transaction is rolled back",
            job.id, job.task, wrapper.alias,
        )  # fmt: skip
        # close() inside a block, or a second time, only marks the connection.
        wrapper.in_atomic_block = wrapper.closed_in_transaction = False
        wrapper.close()
    return [wrapper.alias for wrapper in left]


def _in_blocks() -> dict[int, Any]:
    """Return the connections inside atomic()."""
    return {id(wrapper): wrapper for wrapper in connections.all(initialized_only=True) if wrapper.in_atomic_block}


def close_unusable_connections() -> None:
    """Close connections that are broken or past CONN_MAX_AGE, except those inside atomic(): a test's, for instance."""
    for wrapper in connections.all(initialized_only=True):
        if not wrapper.in_atomic_block:
            wrapper.close_if_unusable_or_obsolete()


def aware(moment: datetime) -> datetime:
    """Return an aware datetime; without USE_TZ, Django's are naive in the default time zone."""
    return moment if timezone.is_aware(moment) else timezone.make_aware(moment, timezone.get_default_timezone())
