"""--max-jobs: so many jobs are started by all workers together, and not one more."""

import os
import random
import signal
import threading

import pytest

from qworkerd.shared.budget import Budget
from qworkerd.shared.header import Header
from qworkerd.shared.slots import SlotTable
from tests.forks import apart


@pytest.fixture
def header() -> Header:
    return SlotTable(1).header


def test_without_a_limit_everything_may_start(header: Header) -> None:
    budget = Budget(header, None)
    assert budget.reserve(256) == 256
    assert not budget.limited
    assert not budget.exhausted


def test_what_is_drawn_is_gone_and_what_is_given_back_can_be_drawn_again(header: Header) -> None:
    budget = Budget(header, 10)
    assert [budget.reserve(8), budget.reserve(8), budget.reserve(8)] == [8, 2, 0]
    spent = [budget.exhausted]
    budget.restore(3)
    spent.append(budget.exhausted)
    assert spent == [True, False]
    assert budget.reserve(8) == 3


def test_processes_that_draw_at_once_get_no_more_than_there_is(header: Header) -> None:
    budget = Budget(header, 5_000)

    def start(number: int) -> tuple[int, int]:
        """Draw until nothing is left, giving some back, as a worker does that got fewer jobs than it asked for."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            luck, started = random.Random(number), 0
            while reserved := budget.reserve(luck.randint(1, 20)):
                unused = luck.randint(0, reserved - 1)
                budget.restore(unused)
                started += reserved - unused
            os.write(writing, str(started).encode())
            os._exit(0)
        os.close(writing)
        return pid, reading

    total = 0
    for pid, reading in [start(number) for number in range(4)]:
        os.waitpid(pid, 0)
        with os.fdopen(reading) as pipe:
            total += int(pipe.read())
    assert total == 5_000


def test_a_process_that_dies_while_it_draws_does_not_stop_the_others(header: Header) -> None:
    budget = Budget(header, 10)

    def reserve_beside_a_dying_process() -> int:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            with budget._lock:
                os.write(writing, b"locked")
                signal.pause()
        os.read(reading, 6)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return budget.reserve(4)

    assert apart(reserve_beside_a_dying_process) == 4


def test_the_threads_of_one_process_wait_for_each_other_too(header: Header) -> None:
    """A worker reserves while its acknowledger restores; a record lock is the process's, and excludes no thread."""
    budget, order = Budget(header, 3), []

    def reserve_jobs() -> None:
        budget.reserve(1)
        order.append("drawn")

    with budget._lock:
        thread = threading.Thread(target=reserve_jobs)
        thread.start()
        thread.join(0.1)
        order.append("unlocked")
    thread.join()
    assert order == ["unlocked", "drawn"]
