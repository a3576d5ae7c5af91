"""Asynchronous handlers: an application for nodes under test."""

import asyncio
import os
import signal
import time
from typing import Any

from qworker import App, Retry, current_job
from tests.lifecycle.application import note

app = App()

WAYS = ("waits", "gathers", "swallows and waits", "blocks", "blocks in a task", "blocks in a callback", "cleans up")


async def _forever() -> None:
    note("started", job=current_job.id)
    await asyncio.sleep(600)


def _block() -> None:
    note("started", job=current_job.id)
    while True:
        time.sleep(0.01)


async def _blocked() -> None:
    _block()


async def _run(way: str) -> None:
    match way:
        case "waits":
            await _forever()
        case "gathers":
            async with asyncio.timeout(600), asyncio.TaskGroup() as group:
                group.create_task(_forever())
                group.create_task(asyncio.to_thread(time.sleep, 0.01))
        case "swallows and waits":
            while True:
                try:
                    await _forever()
                except asyncio.CancelledError:
                    note("swallowed", job=current_job.id)
        case "blocks":
            _block()
        case "blocks in a task":
            task = asyncio.create_task(_blocked())
            await asyncio.Event().wait()
            await task
        case "blocks in a callback":
            asyncio.get_running_loop().call_soon(_block)
            await asyncio.Event().wait()
        case "cleans up":
            try:
                await _forever()
            finally:
                await asyncio.sleep(0.1)
                note("cleaned", job=current_job.id)


@app.task(name="ends", retry=Retry(2, backoff=0, jitter=0), timeout=0.5)
async def ends(way: str) -> str:
    if current_job.attempt > 1:
        return "second attempt"
    try:
        await _run(way)
    except asyncio.CancelledError:
        note("cancelled", job=current_job.id)
        raise
    return "never"


@app.task(name="adds", retry=Retry(1))
async def adds(a: int, b: int) -> int:
    await asyncio.sleep(0.001)
    task = asyncio.create_task(asyncio.sleep(60))  # is left behind
    await asyncio.sleep(0)
    assert not task.done()
    return a + b + await asyncio.to_thread(lambda: current_job.id * 0)


@app.task(name="snoozes", retry=Retry(1))
async def snoozes() -> None:
    await asyncio.sleep(0)
    current_job.snooze(3600)


@app.task(name="raises", retry=Retry(1))
async def raises(error: str) -> None:
    await asyncio.sleep(0)
    if error == "cancels itself":
        raise asyncio.CancelledError
    if error == "exits":
        raise SystemExit(3)
    raise ValueError(error)


@app.task(name="signals", retry=Retry(1))
async def signals() -> list[str]:
    """Take over signals as servers do, and receive one."""
    loop, received = asyncio.get_running_loop(), asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        loop.add_signal_handler(signum, received.set)
    os.kill(os.getpid(), signal.SIGTERM)
    await received.wait()
    return ["received"]


@app.task(name="dispositions", retry=Retry(1))
def dispositions() -> Any:
    return [str(getattr(signal.getsignal(n), "__qualname__", None)) for n in (signal.SIGTERM, signal.SIGUSR1)]
