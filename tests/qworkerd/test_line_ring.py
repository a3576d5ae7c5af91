"""The ring of log lines in shared memory: what a reader finds while a writer writes, and after it has died."""

import os
import threading
from mmap import mmap

import pytest

from qworkerd.log.job_lines import as_fields
from qworkerd.log.line_ring import MAX_LINE, MAX_LINES, RING_BYTES, LineRing, Lines


@pytest.fixture
def memory() -> memoryview:
    return memoryview(mmap(-1, RING_BYTES))


@pytest.fixture
def ring(memory: memoryview) -> LineRing:
    return LineRing(memory)


def test_the_last_lines_of_the_attempt_are_read_and_no_others(ring: LineRing) -> None:
    assert ring.read(1, 1.0) is None
    ring.begin(1, 1.0)
    assert ring.read(1, 1.0) == Lines([], 0)
    for number in range(MAX_LINES + 50):
        ring.write(b"%d" % number)
    assert ring.read(1, 1.0) == Lines([b"%d" % number for number in range(50, MAX_LINES + 50)], 50)
    assert ring.read(1, 2.0) is None
    assert ring.read(2, 1.0) is None
    ring.begin(2, 3.0)
    ring.write(b"x" * MAX_LINE)
    assert ring.read(1, 1.0) is None
    assert ring.read(2, 3.0) == Lines([b"x" * MAX_LINE], 0)
    ring.clear()
    assert ring.read(2, 3.0) is None


def test_another_process_reads_what_a_dead_one_has_written(ring: LineRing) -> None:
    pid = os.fork()
    if pid == 0:
        ring.begin(7, 1.5)
        ring.write(b"last words")
        os._exit(0)
    os.waitpid(pid, 0)
    assert ring.read(7, 1.5) == Lines([b"last words"], 0)


def test_no_line_is_torn_or_read_twice_while_threads_write(ring: LineRing) -> None:
    ring.begin(1, 1.0)
    done = threading.Event()

    def write(letter: bytes) -> None:
        for size in range(3000):
            ring.write(letter * (size % 500 + 1))

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    last = 0
    while not done.is_set():
        if not any(thread.is_alive() for thread in threads):
            done.set()
        found = ring.read(1, 1.0)
        assert found is not None
        assert all(len(set(line)) == 1 for line in found.lines)
        assert len(found.lines) <= MAX_LINES
        assert found.dropped + len(found.lines) >= last
        last = found.dropped + len(found.lines)
    assert last == 9000


@pytest.mark.parametrize("byte", [0x00, 0x01, 0x7F, 0xFF])
def test_damaged_memory_is_read_without_an_error(memory: memoryview, ring: LineRing, byte: int) -> None:
    ring.begin(1, 1.0)
    for _ in range(MAX_LINES):
        ring.write(b'{"event": "a"}')
    memory[24:] = bytes([byte]) * (len(memory) - 24)
    as_fields(ring.read(1, 1.0))


def test_a_damaged_line_leaves_the_others(ring: LineRing) -> None:
    ring.begin(1, 1.0)
    for line in (b'{"event": "a", "job": 1}', b"\xff{", b"[1]", b'{"event": "b"}'):
        ring.write(line)
    unreadable = {"event": "a line that cannot be read"}
    assert as_fields(ring.read(1, 1.0)) == {"logs": [{"event": "a"}, unreadable, unreadable, {"event": "b"}]}
