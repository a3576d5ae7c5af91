"""Where lines go: many threads at once, and nobody who reads."""

import fcntl
import os
import select
import threading
from collections.abc import Iterator

import pytest

from qworkerd.log.writer import Writer


@pytest.fixture
def full() -> Iterator[int]:
    """A pipe that has no room, and is not read."""
    reading, writing = os.pipe()
    os.write(writing, bytes(fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ)))
    yield writing
    os.close(reading)
    os.close(writing)


def test_threads_may_wait_for_the_reader_at_the_same_time(full: int) -> None:
    """A worker's main thread and its acknowledger both log when the database goes away."""
    sink, errors, start = Writer(full), [], threading.Barrier(4)

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


def test_room_that_somebody_else_takes_first_costs_a_line_and_no_hang() -> None:
    """poll() has said there is room, and then there is not enough: a writer that blocks waits for ever."""
    reading, writing = os.pipe()
    try:
        os.write(writing, bytes(fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ) - select.PIPE_BUF))
        sink = Writer(writing)
        sink.write(bytes(2 * select.PIPE_BUF))
        assert sink.dropped == 1
        assert os.get_blocking(writing), "whoever shares it still blocks"
    finally:
        os.close(reading)
        os.close(writing)


def test_a_writer_that_was_not_fast_enough_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader lives, and another process took the room between poll() and write()."""
    reading, writing = os.pipe()
    outcomes = iter([BlockingIOError(11, "Resource temporarily unavailable"), None])
    write = os.write

    def racing(fd: int, line: bytes) -> int:
        if error := next(outcomes):
            raise error
        return write(fd, line)

    try:
        sink = Writer(writing)
        monkeypatch.setattr("qworkerd.log.writer.os.write", racing)
        sink.write(b"a line\n")
        assert sink.dropped == 0
        assert os.read(reading, 100) == b"a line\n"
    finally:
        os.close(reading)
        os.close(writing)
