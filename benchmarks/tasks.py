"""The application that is measured."""

import os
import time

from qworker import App, Retry, current_job

app = App()

#: Where handlers note what they see; appends of this size are atomic.
NOTES = (
    os.open(os.environ["BENCH_NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT) if "BENCH_NOTES" in os.environ else -1
)


@app.task(name="noop", timeout=30)
def noop(n: int) -> None:
    pass


@app.task(name="clock", timeout=30)
def clock(called: float) -> None:
    """Note how long ago, in seconds, somebody has called enqueue."""
    os.write(NOTES, b"%.6f\n" % (time.monotonic() - called))


@app.task(name="nap", timeout=60)
def nap(seconds: float) -> None:
    """Note its number, and when it starts and ends (seconds since 1970)."""
    start = time.time()
    time.sleep(seconds)
    os.write(NOTES, b"%d %.6f %.6f\n" % (current_job.id, start, time.time()))


@app.task(name="broken", timeout=30, retry=Retry(1))
def broken(n: int) -> None:
    raise ValueError(n)
