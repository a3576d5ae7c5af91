"""Dramatiq on Redis: the actor, with the default middleware (its time limit is 10 minutes), and `fill`."""

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=os.environ["PEER_URL"]))


@dramatiq.actor
def noop(n: int) -> None:
    pass


def fill(jobs: int) -> None:
    for n in range(jobs):
        noop.send(n)
