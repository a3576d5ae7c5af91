"""Keeps jobs from failing with what an application plugs into the SDKs of OpenTelemetry and Sentry."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_log = logging.getLogger("qworker.contrib")
#: The steps whose first failure was logged.
_reported: set[str] = set()


@contextmanager
def ignored(step: str) -> Iterator[None]:
    """Ignore an exception inside of the block; the first one of a step is logged.

    A handler that has done its work must not run again because its span could not be ended.
    """
    try:
        yield
    except Exception:  # noqa: BLE001 - it is the code of the application, or of one of many packages
        if step not in _reported:
            _reported.add(step)
            _log.warning("%s has failed; jobs are not affected, and this is logged once", step, exc_info=True)
