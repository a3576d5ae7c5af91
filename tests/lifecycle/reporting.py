"""More of the application under test: what is told of failed attempts, to hooks and to a handler of `logging`."""

import logging
import os

from qworker import Job, JobFailed
from tests.lifecycle import hostile
from tests.lifecycle.application import note
from tests.lifecycle.handlers import app, hold

__all__ = ["app", "hostile"]


class Tracker(logging.Handler):
    """What an error tracker sees."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "qworker.job" and record.levelno == logging.ERROR:
            raised = record.exc_info[1] if record.exc_info else None
            note("logged", job=vars(record)["job_id"], attempt=vars(record)["attempt"], raised=type(raised).__name__)


logging.getLogger().addHandler(Tracker())
logging.getLogger("qworker.job").addHandler(logging.NullHandler())


@app.on_error
def breaks(_job: Job, _error: JobFailed) -> None:
    raise SystemExit("a broken hook")


async def _unrun() -> None:
    raise AssertionError


@app.on_error
def forgets_to_await(_job: Job, _error: JobFailed) -> object:
    return _unrun()


@app.on_error
def report(job: Job, error: JobFailed) -> None:
    note("reported", job=job.id, task=job.task, state=job.state, attempt=error.attempt, type=error.type,
         cause=error.cause, raised=type(error.__cause__).__name__, args=bool(job.args), pid=os.getpid())  # fmt: skip


if "QWORKER_TEST_STUCK_HOOK" in os.environ:

    @app.on_error
    def sticks(_job: Job, _error: JobFailed) -> None:
        hold(os.environ["QWORKER_TEST_STUCK_HOOK"])
