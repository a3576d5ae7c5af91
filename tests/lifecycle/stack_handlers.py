"""Handlers that are stuck, each in its own way, until a file appears."""

import asyncio
import ctypes
import faulthandler
import time
from pathlib import Path

from qworker import App, current_job
from qworkerd.shared.stacks import DUMP_SIGNAL
from tests.lifecycle.application import note

app = App()


@app.task(timeout=120)
def sleeps(end: str) -> str:
    note("started", job=current_job.id)
    while not Path(end).exists():
        time.sleep(1.5)
    return "undisturbed"


@app.task(timeout=120)
def deaf(end: str) -> str:
    """Take away the handler of the signal, whose default action ends the process."""
    faulthandler.unregister(DUMP_SIGNAL)
    note("started", job=current_job.id)
    while not Path(end).exists():
        time.sleep(0.1)
    return "undisturbed"


@app.task(timeout=120)
def spins(end: str) -> str:
    note("started", job=current_job.id)
    while not Path(end).exists():
        sum(range(1000))
    return "undisturbed"


@app.task(timeout=120)
def in_c(end: str) -> str:
    """Be in C code that holds the interpreter's lock: no Python code of the process can run."""
    note("started", job=current_job.id)
    library = ctypes.PyDLL(None)
    while not Path(end).exists():
        library.usleep(3_000_000)
    return "undisturbed"


@app.task(timeout=120)
async def awaits(end: str) -> str:
    note("started", job=current_job.id)
    while not Path(end).exists():  # noqa: ASYNC110, ASYNC240 - as a handler of an application may
        await asyncio.sleep(0.1)
    return "undisturbed"
