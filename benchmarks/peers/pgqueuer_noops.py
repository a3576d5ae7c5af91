"""PgQueuer: a factory for each kind of handler, `fill`, `single` and `produce`. It has no time limit for jobs."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

PAYLOAD = b"1"
#: Where the asynchronous handler notes how late it is, when the payload is the moment of its enqueue.
LAGS = os.open(os.environ["LATENCY_FILE"], os.O_WRONLY | os.O_APPEND) if "LATENCY_FILE" in os.environ else -1


def nothing() -> None:
    pass


async def thread(_job: Job) -> None:
    await asyncio.to_thread(nothing)


async def noop(job: Job) -> None:
    if job.payload and job.payload != PAYLOAD:
        lag = time.monotonic() - float(job.payload)
        os.write(LAGS, f"{lag!r}\n".encode())


@asynccontextmanager
async def queuer(handler: Callable[[Job], Awaitable[None]]) -> AsyncIterator[PgQueuer]:
    connection = await asyncpg.connect(os.environ["PGDSN"])
    made = PgQueuer.from_asyncpg_connection(connection)
    made.entrypoint("noop")(handler)
    yield made


def asynchronous() -> AbstractAsyncContextManager[PgQueuer]:
    return queuer(noop)


def blocking() -> AbstractAsyncContextManager[PgQueuer]:
    return queuer(thread)


@asynccontextmanager
async def enqueuing() -> AsyncIterator[Queries]:
    connection = await asyncpg.connect(os.environ["PGDSN"])
    yield Queries(AsyncpgDriver(connection))
    await connection.close()


async def fill(jobs: int) -> None:
    async with enqueuing() as queries:
        for start in range(0, jobs, 1000):
            size = min(1000, jobs - start)
            await queries.enqueue(["noop"] * size, [PAYLOAD] * size, [0] * size)


async def single(jobs: int) -> None:
    async with enqueuing() as queries:
        for _ in range(jobs):
            await queries.enqueue("noop", PAYLOAD)


async def produce(jobs: int, microseconds: int) -> None:
    """Enqueue one job every so often, each with the moment of its enqueue."""
    async with enqueuing() as queries:
        start = time.monotonic()
        for n in range(jobs):
            await asyncio.sleep(start + n * microseconds / 1e6 - time.monotonic())
            await queries.enqueue("noop", repr(time.monotonic()).encode())
