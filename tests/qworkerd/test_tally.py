"""The counters that the processes of a node share."""

import os
import signal
import subprocess
import sys

import pytest

from qworker.histogram import bucket_of
from qworkerd.shared.series import FIRST, MAX_SERIES, OTHER, SeriesNumbers
from qworkerd.shared.tally import CELLS, MAX_SUM, REGION, RUN_BUCKETS, WAIT_BUCKETS, Counter, Tally

#: Prints the count and the shared memory of a process whose children are replaced (kB).
REPLACED = """
import os
from pathlib import Path
from qworkerd.shared.tally import Counter, Tally

tally = Tally(2)
series = tally.numbers["mail", "send"]
for replacement in range(1_000):
    pid = os.fork()
    if pid == 0:
        tally.writer(1).attempt(series, Counter.SUCCEEDED, 0.1, 0.1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    if replacement in (10, 999):
        count = tally.read(series)[Counter.SUCCEEDED]
        print(count, Path("/proc/self/status").read_text().partition("RssShmem:")[2].split()[0])
"""


def in_child(run: object) -> None:
    """Run a function in a forked process."""
    pid = os.fork()
    if pid == 0:
        try:
            run()  # type: ignore[operator]
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def test_all_processes_give_a_pair_the_same_number() -> None:
    numbers = SeriesNumbers()
    mine = numbers["default", "send"]
    in_child(lambda: numbers["mail", "sénd"])
    assert mine == FIRST
    assert numbers["other", "send"] == FIRST + 2
    assert numbers["mail", "sénd"] == FIRST + 1
    assert numbers.names() == [("default", "send"), ("mail", "sénd"), ("other", "send")]


def test_pairs_beyond_the_limit_are_counted_together() -> None:
    numbers = SeriesNumbers()
    found = [numbers["default", f"task{n}"] for n in range(MAX_SERIES + 5)]
    assert found == [*range(FIRST, MAX_SERIES), *[OTHER] * 7]
    assert numbers["default", "task0"] == FIRST


def test_long_names_fill_the_space_and_break_nothing() -> None:
    numbers = SeriesNumbers()
    found = [numbers["q" * 200, "é" * 190 + str(n)] for n in range(MAX_SERIES)]
    assert OTHER in found
    assert len(numbers.names()) == found.index(OTHER)


def test_a_process_that_dies_while_it_adds_a_pair_does_not_stop_the_others() -> None:
    numbers = SeriesNumbers()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with numbers._lock:
            os.write(writing, b"locked")
            signal.pause()
    os.read(reading, 6)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert numbers["default", "send"] == FIRST


def test_the_counts_of_a_process_are_continued_by_its_replacement() -> None:
    tally = Tally(2)
    series = tally.numbers["default", "send"]
    for _ in range(3):
        in_child(lambda: tally.writer(1).count(series, Counter.FAILED, 2))
    tally.writer(0).count(series, Counter.FAILED)
    assert tally.read(series)[Counter.FAILED] == 7


def test_successes_are_counted_with_their_waits_and_run_times() -> None:
    tally = Tally(1)
    writer = tally.writer(0)
    writer.succeed(5, [0.1, 0.1, 0.1], [0.5, 0.0001])
    writer.succeed(5, [0.1, 4.0], [])
    found = tally.read(5)
    assert found[Counter.SUCCEEDED] == 5
    assert found[WAIT_BUCKETS + bucket_of(0.1)] == 4
    assert found[WAIT_BUCKETS + bucket_of(4.0)] == 1
    assert found[RUN_BUCKETS] == 4, "those under a millisecond"
    assert found[RUN_BUCKETS + bucket_of(0.5)] == 1
    assert found[Counter.WAIT] == pytest.approx(4.4e6, abs=5)
    assert found[Counter.RUN] == pytest.approx(0.5001e6, abs=5)
    assert sum(found[RUN_BUCKETS:WAIT_BUCKETS]) == sum(found[WAIT_BUCKETS:]) == 5


def test_a_wait_before_the_clock_was_moved_is_none() -> None:
    tally = Tally(1)
    tally.writer(0).attempt(3, Counter.RAISED, float("-inf"), None)
    tally.writer(0).succeed(3, [float("-inf"), -3.0], [])
    found = tally.read(3)
    assert (found[WAIT_BUCKETS], found[Counter.WAIT]) == (3, 0)


def test_times_edited_by_hand_do_not_stop_the_counting() -> None:
    """The acknowledger would repeat the write for ever."""
    writer = Tally(1).writer(0)
    for _ in range(20_000):
        writer.succeed(3, [float("inf"), float("nan"), 2e11], [])
    writer.attempt(3, Counter.RAISED, float("nan"), float("inf"))


def test_a_replacement_clears_what_a_handler_has_damaged() -> None:
    """Otherwise the count of its first job would overflow, and end it like its predecessor."""
    tally = Tally(2)
    series = tally.numbers["mail", "send"]
    writer = tally.writer(1)
    writer.succeed(series, [0.1], [])
    for number in range(CELLS):
        tally._cells[REGION + series * CELLS + number] = ((1 << 63) - 1, -(1 << 63), 5)[number % 3]
    found = tally.read(series)
    assert all(0 <= cell <= MAX_SUM for cell in found)
    tally.writer(1).succeed(series, [0.1], [0.5])
    tally.writer(1).attempt(series, Counter.RAISED, 0.1, 1.0)
    assert all(0 <= cell <= MAX_SUM for cell in tally.read(series))


def test_replaced_processes_take_no_more_memory() -> None:
    """The replacement of a process continues its region: its counts, and its pages."""
    # In a process of its own: that of the tests is large, and a thousand copies of its page tables take minutes.
    done = subprocess.run([sys.executable, "-c", REPLACED], capture_output=True, text=True, timeout=60, check=True)
    first, last = (line.split() for line in done.stdout.splitlines())
    assert (first[0], last[0]) == ("11", "1000")
    assert first[1] == last[1]
