"""Huey on PostgreSQL: the task, with a time limit, `install` and `fill`. It has no bulk enqueue."""

import os

from huey import PostgresHuey

huey = PostgresHuey("noops", dsn=os.environ["PEER_URL"], create_tables=False)


@huey.task(timeout=int(os.environ["PEER_TIME_LIMIT"]))
def noop(n: int) -> None:
    pass


def install() -> None:
    huey.storage.initialize_schema()


def fill(jobs: int) -> None:
    for n in range(jobs):
        noop(n)
