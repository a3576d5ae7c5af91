"""More of the application under test: handlers that spoil what their process shares with the worker's own code."""

import faulthandler
import locale
import math
import os
import resource
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from qworker import Retry, current_job
from qworker.db.deadline import DeadlineConnection
from qworkerd.scheduler import rejections
from qworkerd.shared.slots import Slot
from qworkerd.worker import write_queue
from qworkerd.worker.runner import Runner
from tests.lifecycle.application import alone, app

__all__ = ["DAMAGES", "app"]

ONCE_MORE = Retry(2, backoff=0.05, jitter=0)


@app.task(name="stalls_acknowledger", timeout=120)
def stalls_acknowledger() -> None:
    """Run on while the thread that stores outcomes waits for ever."""
    with alone():
        DeadlineConnection.wait = lambda *_, **__: threading.Event().wait()  # type: ignore[method-assign,assignment]
        current_job.progress(0.5)
        time.sleep(120)


def _own_slot() -> Slot:
    frame = sys._getframe()
    while not isinstance(runner := frame.f_locals.get("self"), Runner):
        assert frame.f_back is not None
        frame = frame.f_back
    return runner._slot


def _fill(slot: Slot, byte: int) -> None:
    for claim in slot.claims:
        if claim.token:
            claim.statuses[:] = bytes([byte]) * len(claim.statuses)


def _overwrite_counts(slot: Slot) -> None:
    for claim in slot.claims:
        if claim.token:
            claim._head[1] = 2**40


def _overwrite_ids(slot: Slot) -> None:
    for claim in slot.claims:
        if claim.token:
            claim.ids[:] = memoryview(os.urandom(claim.ids.nbytes)).cast("q")


def _overwrite_words(slot: Slot) -> None:
    for number in range(1, len(slot.words)):
        slot.words[number] = 2**62 + number


DAMAGES: dict[str, Callable[[Slot], None]] = {
    "statuses": lambda slot: _fill(slot, 0xEE),
    "counts": _overwrite_counts,
    "ids": _overwrite_ids,
    "words": _overwrite_words,
}


@app.task(name="damages_slot", retry=ONCE_MORE, timeout=60)
def damages_slot(what: str) -> None:
    """Write into the shared memory of its worker, as native code that has lost its way does, and abort."""
    with alone():
        if current_job.attempt == 1 and not current_job_lost():
            DAMAGES[what](_own_slot())
            os.abort()


def current_job_lost() -> bool:
    """Tell whether the job has run before, also where that was not counted as an attempt."""
    job = app.job(current_job.id)
    return bool(job.node_losses or job.crashes)


@app.task(name="leaves_environment")
def leaves_environment(variables: dict[str, str]) -> None:
    with alone():
        os.environ.update(variables)


@app.task(name="leaves_process")
def leaves_process() -> None:
    """Change everything else that a process has, and that outlives a job."""
    with alone():
        directory = Path(tempfile.mkdtemp())
        os.chdir(directory)
        directory.rmdir()
        os.umask(0o777)
        with suppress(locale.Error):
            locale.setlocale(locale.LC_ALL, "de_DE.UTF-8")
        os.environ.clear()


#: What ends a process a little later.
DELAYED: dict[str, Callable[[], object]] = {
    "faulthandler": lambda: faulthandler.dump_traceback_later(0.3, exit=True),
    "ITIMER_PROF": lambda: signal.setitimer(signal.ITIMER_PROF, 0.3),
    "ITIMER_VIRTUAL": lambda: signal.setitimer(signal.ITIMER_VIRTUAL, 0.3),
    "RLIMIT_CPU": lambda: _limit(resource.RLIMIT_CPU, math.ceil(time.process_time())),
    "RLIMIT_AS": lambda: _limit(resource.RLIMIT_AS, 1 << 20),
    "RLIMIT_NOFILE": lambda: _limit(resource.RLIMIT_NOFILE, 3),
}


def _limit(which: int, soft: int) -> None:
    resource.setrlimit(which, (soft, resource.getrlimit(which)[1]))


@app.task(name="leaves_delayed", retry=Retry(1))
def leaves_delayed(what: str) -> None:
    DELAYED[what]()


@app.task(name="works", retry=Retry(1))
def works(seconds: float) -> int:
    """Use the processor, memory and files."""
    with alone():
        end = time.process_time() + seconds
        while time.process_time() < end:
            bytearray(1 << 22)
        with tempfile.TemporaryFile() as file:
            return file.write(b"done")


@app.task(name="closes_standard")
def closes_standard() -> None:
    with alone():
        os.closerange(0, 3)


@app.task(name="standard")
def standard() -> list[str]:
    """Return what the three standard descriptors lead to."""
    with alone():
        return [str(Path(f"/proc/self/fd/{fd}").readlink()) for fd in range(3)]


@app.task(name="borrows")
def borrows() -> int:
    """Use the connection of the job."""
    row = current_job.connection.execute("SELECT 1").fetchone()
    assert row is not None
    return int(row[0])


@app.task(name="enqueues")
def enqueues() -> None:
    """Use the application's pool."""
    borrows.enqueue()


class Broken:
    """In place of standard output: whoever writes out what is buffered is left by an exception."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def flush(self) -> None:
        raise self.error("flush")

    def write(self, text: str) -> int:
        return len(text)


@app.task(name="replaces_output")
def replaces_output() -> None:
    with alone():
        broken: Any = Broken(SystemExit)
        sys.stdout = sys.stderr = broken


@app.task(name="answers_in_transaction", transactional=True, retry=Retry(1))
def answers_in_transaction() -> int:
    """Do some work that is committed with the end of the job."""
    current_job.connection.execute("SELECT 1")
    return 42


if os.environ.get("QWORKER_TEST_LAST_RESORT"):
    patched: Any = (write_queue, rejections)
    for module in patched:
        module.LAST_RESORT = float(os.environ["QWORKER_TEST_LAST_RESORT"])

if os.environ.get("QWORKER_TEST_OUTPUT"):
    output: Any = Broken(RuntimeError)
    sys.stdout = output
