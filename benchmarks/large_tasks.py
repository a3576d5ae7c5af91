"""The application whose backlog is crowd.sql. Its jobs take time: two workers run some hundred of them a second."""

import time
from typing import Any

from tasks import app

#: How long a handler computes, and how long it waits for something else, such as a request (seconds).
COMPUTING, WAITING = 0.002, 0.003


def work(**_: Any) -> None:
    """Compute, and wait."""
    end = time.thread_time() + COMPUTING
    while time.thread_time() < end:
        pass
    time.sleep(WAITING)


bulk_import = app.task(name="bulk.import", queue="bulk", timeout=30)(work)
for number in range(200):
    app.task(name=f"app.task_{number}", timeout=30)(work)
