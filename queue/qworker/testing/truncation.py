"""Deletes the jobs that tests have committed."""

from typing import Any

from qworker import App
from qworker.maintenance import Maintenance
from qworker.testing.transaction import connection


def truncate(app: App, *, using: Any = None) -> None:
    """Delete all jobs, keys, schedules and settings of queues, and close the application's unused connections.

    For tests that commit. The database can be dropped afterwards. Without `using` (see `drain`), a connection of the
    application is used. Takes milliseconds.
    """
    with connection(app, using) as database:
        Maintenance(app.schema).flush(database)
    app.close()
