"""An application that reports to Sentry: each process of its node writes what it would send into a file."""

import os
import signal
import time
from contextlib import suppress

import sentry_sdk

from qworker import App, Retry
from qworker.contrib.sentry import Sentry
from tests.contrib.sentry.transport import KeepingTransport

app = App()


def set_up() -> None:
    # The integrations that are enabled by default import what is installed: Django, Flask, SQLAlchemy, for seconds.
    sentry_sdk.init(
        "https://key@localhost/1", transport=KeepingTransport, traces_sample_rate=1.0, auto_enabling_integrations=False
    )


sentry = Sentry(app, setup=set_up)


@app.task(name="pay", retry=Retry(2, backoff=0))
def pay() -> None:
    sentry_sdk.add_breadcrumb(message="calling the bank")
    raise LookupError("no card")


@app.task(name="first")
def first() -> None:
    second.enqueue()


@app.task(name="second")
def second() -> None: ...


@app.task(name="die")
def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="hang", timeout=0.2, retry=False)
def hang() -> None:
    while True:
        with suppress(BaseException):  # it does not let itself be interrupted
            time.sleep(60)


@app.task(name="slow", timeout=0.2, retry=False)
def slow() -> None:
    time.sleep(60)
