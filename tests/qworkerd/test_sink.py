"""Where lines go: many threads at once, and nobody who reads."""

import fcntl
import os
import threading
from collections.abc import Iterator

import pytest

from qworkerd.sink import Sink


@pytest.fixture
def full() -> Iterator[int]:
    """A pipe that has no room, and is not read."""
    reading, writing = os.pipe()
    os.write(writing, bytes(fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ)))
    yield writing
    os.close(reading)
    os.close(writing)


def test_threads_may_wait_for_the_reader_at_the_same_time(full: int) -> None:
    """A worker's main thread and its clerk both log when the database goes away."""
    sink, errors, start = Sink(full), [], threading.Barrier(4)

    def write() -> None:
        start.wait()
        try:
            sink.write(b"a line\n")
        except Exception as error:  # noqa: BLE001 - any is one too many
            errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sink.dropped
