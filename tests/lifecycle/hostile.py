"""More of the application under test: what goes wrong with a node rather than with a job."""

import os
import signal
import time
from functools import partial
from pathlib import Path

from qworker import Retry, current_job
from tests.lifecycle.application import alone, folder, note
from tests.lifecycle.handlers import app, hold

__all__ = ["app"]


class Orders:
    """What new children of a node do instead of booting: "hang", or "exit 3"."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def give(self, order: str) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(order)
        new.rename(self.path)

    def recall(self) -> None:
        self.path.unlink()


def boot(orders: Path) -> None:
    """Do in a new child what a file says; without the file boot as usual."""
    try:
        order, *code = orders.read_text().split()
    except FileNotFoundError:
        return
    note("boot", order=order, pid=os.getpid())
    if order == "exit":
        os._exit(int(code[0]))
    while True:
        signal.pause()


if orders := os.environ.get("QWORKER_TEST_BOOT"):
    os.register_at_fork(after_in_child=partial(boot, Path(orders)))


@app.task(name="lingers", timeout=120, retry=Retry(1))
def lingers() -> None:
    """Run for a minute the first time, and for no time after that, whatever the attempts say."""
    with alone():
        been = folder / f"lingered-{current_job.id}"
        if not been.exists():
            been.touch()
            time.sleep(60)


@app.task(name="pulse", timeout=120)
def pulse(path: str) -> None:
    """Run until a file for this process is there, without the lock: a process that stands still would hold it."""
    note("start", job=current_job.id, pid=os.getpid(), at=time.monotonic())
    hold(f"{path}-{os.getpid()}")


@app.task(name="orphans", timeout=60)
def orphans() -> None:
    """Leave a process behind whose parent is gone, as a program that daemonises does."""
    with alone():
        if os.fork() == 0:
            orphan = os.fork()
            if orphan == 0:
                os.setsid()
                os.execv("/bin/true", ["true"])
            note("orphan", job=current_job.id, pid=orphan)
            os._exit(0)
        os.wait()


if expression := os.environ.get("QWORKER_TEST_MISFIRES"):
    for misfire in ("skip", "once", "all"):

        @app.cron(expression, name=misfire, misfire=misfire)
        @app.task(name=f"misfire_{misfire}")
        def misfires() -> None:
            note("misfire", task=current_job.task)


@app.task(name="hungry", retry=Retry(2, backoff=0.0), timeout=60)
def hungry(megabytes: int) -> None:
    """Take more and more memory at the first attempt."""
    with alone():
        if current_job.attempt == 1:
            kept = [os.urandom(1 << 20) for _ in range(megabytes)]
            note("fed", megabytes=len(kept))
