"""Errors, performance and schedules in Sentry (extra `sentry`): `Sentry(app)`."""

from qworker.contrib.sentry.extension import Sentry

__all__ = ["Sentry"]
