"""Celery on Redis: the app with a task whose result is ignored, and `fill`. It has no bulk enqueue."""

import os

from celery import Celery

app = Celery("noops", broker=os.environ["PEER_URL"])


@app.task(name="noop", ignore_result=True)
def noop(n: int) -> None:
    pass


def fill(jobs: int) -> None:
    # One producer for all: taking it from the pool for each call costs more than the call.
    with app.producer_or_acquire() as producer:
        for n in range(jobs):
            noop.apply_async((n,), producer=producer)
