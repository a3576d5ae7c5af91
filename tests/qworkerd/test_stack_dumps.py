"""The scheduler's part of `jobs stack`: what a worker wrote is the answer only while it still runs that job."""

import os
import signal
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path

import pytest

from qworker.stacks import JobStacks
from qworkerd.process.proc import blocks, catches, start_ticks
from qworkerd.scheduler import stack_dumps
from qworkerd.scheduler.stack_dumps import StackDumps
from qworkerd.shared.claim import Status
from qworkerd.shared.slots import Slot
from qworkerd.shared.stacks import DUMP_SIGNAL
from tests.qworkerd.test_scheduler import Harness
from tests.qworkerd.test_scheduler import harness as harness_fixture
from tests.waiting import until

harness = harness_fixture
STORED = "SELECT stacks IS NOT NULL, problem FROM qworker.stack_request WHERE answered_at IS NOT NULL"


@pytest.fixture
def worker(harness: Harness) -> Iterator[int]:
    """Yield a process that writes its stacks into the slot of the harness, in which a job runs; yield its pid."""
    pid = os.fork()
    if pid == 0:
        harness.slot.stacks.attach()
        while True:
            signal.pause()
    try:
        until(lambda: catches(pid, DUMP_SIGNAL))
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def request(harness: Harness, pid: int) -> int:
    """Have the worker run a job whose stacks are asked for; return the job's id."""
    job = harness.run()
    harness.slot.words[Slot.PID], harness.slot.words[Slot.START_TICKS] = pid, start_ticks(pid) or 0
    harness.slot.floats[Slot.DEADLINE] = inf
    harness.conn.execute(
        "INSERT INTO qworker.stack_request (job, node) VALUES (%s, %s)", (job, harness.node.table.header.node)
    )
    return job


def dumps(harness: Harness) -> Callable[[int], list[tuple[object, ...]]]:
    """Return a function that answers the requests for a job, and returns the answers that are stored."""
    own = StackDumps(harness.node, JobStacks())

    def answer(job: int) -> list[tuple[object, ...]]:
        own.answer(harness.conn, [job])
        return harness.conn.execute(STORED).fetchall()

    return answer


def test_the_stacks_of_the_job_that_runs_are_stored(harness: Harness, worker: int) -> None:
    assert dumps(harness)(request(harness, worker)) == [(True, None)]


def test_stacks_written_when_the_job_had_ended_are_no_answer(
    harness: Harness, worker: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker may run another job by then, with arguments that the caller has not asked for."""
    complete = stack_dumps._complete

    def late(slot: Slot, offset: int) -> str:
        text = complete(slot, offset)
        slot.claims[0].statuses[0] = Status.SUCCEEDED
        return text

    monkeypatch.setattr(stack_dumps, "_complete", late)
    job, answer = request(harness, worker), dumps(harness)
    assert answer(job) == []
    ((stacks, problem),) = answer(job)
    assert not stacks
    assert "no worker of its node runs it" in str(problem)


def test_a_dump_that_comes_too_late_is_not_part_of_a_later_one(harness: Harness, worker: int) -> None:
    """It was the beginning of the error of another job, and the stacks of that one were cut off."""
    job, answer = request(harness, worker), dumps(harness)
    os.kill(worker, signal.SIGSTOP)
    assert answer(job) == []
    harness.slot.claims[0].statuses[0] = Status.SUCCEEDED
    ((_, problem),) = answer(job)
    assert "no worker of its node runs it" in str(problem)
    os.kill(worker, signal.SIGCONT)
    until(harness.slot.stacks.read)
    answer(job)
    assert harness.slot.stacks.read() == ""


def test_a_process_that_blocks_the_signal_is_not_sent_it(harness: Harness) -> None:
    """A signal for each request would be kept, and the stacks be written as often, when it is unblocked."""
    pid = os.fork()
    if pid == 0:
        harness.slot.stacks.attach()
        signal.pthread_sigmask(signal.SIG_BLOCK, [DUMP_SIGNAL])
        while True:
            signal.pause()
    try:
        until(lambda: catches(pid, DUMP_SIGNAL) and blocks(pid, DUMP_SIGNAL))
        ((stacks, problem),) = dumps(harness)(request(harness, pid))
        assert (stacks, problem) == (False, f"process {pid} does not write its stacks: its handler blocks signals")
        assert b"ShdPnd:\t0000000000000000" in Path(f"/proc/{pid}/status").read_bytes()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
