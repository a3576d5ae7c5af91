"""What runs around every job, as Django does it around a request: connections, queries, language and time zone."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import connections, reset_queries
from django.utils import timezone, translation

from qworker.context import RunningJob


def around_job(_job: RunningJob, call_next: Callable[[], Any]) -> Any:
    """Run a job with usable connections, no recorded queries, and the language and time zone of the settings."""
    reset_queries()
    close_unusable_connections()
    try:
        # What a handler activates ends with it, and what a test has activated around it is there again afterwards.
        with translation.override(settings.LANGUAGE_CODE), timezone.override(None):
            return call_next()
    finally:
        close_unusable_connections()


def close_unusable_connections() -> None:
    """Close connections that are broken or past CONN_MAX_AGE, except those inside atomic(): a test's, for instance."""
    for wrapper in connections.all(initialized_only=True):
        if not wrapper.in_atomic_block:
            wrapper.close_if_unusable_or_obsolete()


def aware(moment: datetime) -> datetime:
    """Return an aware datetime; without USE_TZ, Django's are naive in the default time zone."""
    return moment if timezone.is_aware(moment) else timezone.make_aware(moment, timezone.get_default_timezone())
