"""Oban: an async worker and one that hands over to a thread, each with a time limit; `fill` and `fill_blocking`."""

import asyncio
import os

from oban import Job, Oban, worker

TIME_LIMIT = float(os.environ["PEER_TIME_LIMIT"])


def nothing() -> None:
    pass


@worker(queue="default")
class Asynchronous:
    async def process(self, _job: Job) -> None:
        pass

    def timeout(self, _job: Job) -> float:
        return TIME_LIMIT


@worker(queue="default")
class Blocking:
    async def process(self, _job: Job) -> None:
        await asyncio.to_thread(nothing)

    def timeout(self, _job: Job) -> float:
        return TIME_LIMIT


async def enqueue(kind: type[Asynchronous | Blocking], jobs: int) -> None:
    pool = await Oban.create_pool(os.environ["PEER_URL"])
    async with pool, Oban(pool=pool) as oban:
        for start in range(0, jobs, 1000):
            await oban.enqueue_many(kind.new({"n": n}) for n in range(start, min(start + 1000, jobs)))


async def fill(jobs: int) -> None:
    await enqueue(Asynchronous, jobs)


async def fill_blocking(jobs: int) -> None:
    await enqueue(Blocking, jobs)
