"""RQ: the task and `fill`. Jobs have RQ's default time limit, 180 s, and keep their result for 500 s."""

import os

from redis import Redis
from rq import Queue


def noop(n: int) -> None:
    pass


def fill(jobs: int) -> None:
    queue = Queue(connection=Redis.from_url(os.environ["PEER_URL"]))
    for start in range(0, jobs, 1000):
        queue.enqueue_many([Queue.prepare_data(noop, (n,)) for n in range(start, min(start + 1000, jobs))])
