"""More of the application under test: handlers that turn an interrupt into another exception."""

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

from qworker import Interrupt, JobFailed, Retry, current_job
from tests.lifecycle.application import alone, app, note

__all__ = ["WITHOUT_TRACE", "WRAPPERS", "app"]


def _task_group() -> None:
    async def block() -> None:
        time.sleep(60)  # noqa: ASYNC251 - in the frame of a task, as a driver that does not await

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(block())
            group.create_task(asyncio.sleep(60))

    asyncio.run(work())


def _raise_from() -> None:
    try:
        time.sleep(60)
    except Interrupt as interrupt:
        raise ValueError("the import was not finished") from interrupt


def _raise_from_none() -> None:
    try:
        time.sleep(60)
    except BaseException:  # noqa: BLE001
        raise ValueError("the import was not finished") from None


def _failing_finally() -> None:
    try:
        time.sleep(60)
    finally:
        raise OSError("the temporary file is gone")


def _nested_groups() -> None:
    try:
        _task_group()
    except BaseExceptionGroup as group:
        raise BaseExceptionGroup("outer", [ValueError("beside it"), group]) from None


def _exit() -> None:
    try:
        time.sleep(60)
    except BaseException:  # noqa: BLE001
        sys.exit("interrupted")


def _raise_afterwards() -> None:
    failed = False
    try:
        time.sleep(60)
    except BaseException:  # noqa: BLE001
        failed = True
    if failed:
        raise ValueError("the import was not finished")


WRAPPERS: dict[str, Callable[[], None]] = {
    "TaskGroup": _task_group,
    "raise from": _raise_from,
    "raise from None": _raise_from_none,
    "failing finally": _failing_finally,
    "nested groups": _nested_groups,
    "exit": _exit,
    "raise afterwards": _raise_afterwards,
}


#: The ways whose exception does not lead to the interrupt.
WITHOUT_TRACE = frozenset({"raise afterwards"})


def _run(way: str) -> None:
    with alone():
        if current_job.attempt == 1:
            WRAPPERS[way]()


@app.task(name="wraps", retry=Retry(1), timeout=60)
def wraps(way: str) -> None:
    _run(way)


@wraps.on_failure
def report_wraps(job: Any, _error: JobFailed) -> None:
    note("hook", job=job.id)


@app.task(name="wraps_timeout", retry=Retry(2, backoff=0.05, jitter=0), timeout=0.5)
def wraps_timeout(way: str) -> None:
    _run(way)
