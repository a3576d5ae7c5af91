"""The stacks that a dead child has left: by itself when it crashed, or because it was asked to."""

import ctypes
import errno
import faulthandler
import gc
import os
import re
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from qworkerd.shared.slots import Phase, Role, Slot, SlotTable
from qworkerd.shared.stacks import DUMP_SIGNAL, MAX_BYTES
from qworkerd.supervisor.child import fork
from tests.forks import apart
from tests.waiting import until

Run = Callable[[Slot, Callable[[], object]], int]


@pytest.fixture
def table() -> SlotTable:
    return SlotTable(3)


@pytest.fixture
def run() -> Iterator[Run]:
    """Forks children that run something; none is left behind."""
    pids = []

    def start(slot: Slot, what: Callable[[], object]) -> int:
        def body(_: Slot) -> int:
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            slot.enter(Phase.RUNNING, 0.0)
            what()
            return 0

        slot.assign(Role.WORKER, 1, deadline=0, now=0)
        pids.append(fork(Role.WORKER, slot, body))
        return pids[-1]

    yield start
    for pid in pids:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    # The parent gives up its own: in a supervisor it would be a child's.
    assert not faulthandler.is_enabled()
    faulthandler.enable(2)


def crashes_here() -> None:
    ctypes.string_at(0)


def waits_here() -> None:
    while True:
        signal.pause()


def descends(depth: int) -> None:
    descends(depth - 1) if depth else waits_here()


def asked(slot: Slot, pid: int) -> str:
    """Have a child that waits leave its stacks, and return them."""

    def shows_where_it_waits() -> bool:
        slot.stacks.clear()
        os.kill(pid, DUMP_SIGNAL)
        until(lambda: slot.stacks.read() and rests(pid))
        return "waits_here" in slot.stacks.read()

    # It may also rest on its way there, such as while a thread starts: what it leaves then does not count.
    until(lambda: slot.phase == Phase.RUNNING and rests(pid))
    until(shows_where_it_waits)
    return slot.stacks.read()


def rests(pid: int) -> bool:
    """Tell whether a process sleeps, with no signal to come (proc(5))."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return status["State"].startswith("S") and int(status["SigPnd"], 16) == int(status["ShdPnd"], 16) == 0


def test_a_child_that_crashes_leaves_its_stacks_on_its_own_page(table: SlotTable, run: Run) -> None:
    first, second, third = table.slots
    waiting = run(first, waits_here)
    _, status = os.waitpid(run(second, crashes_here), 0)
    assert os.WTERMSIG(status) == signal.SIGSEGV
    assert "Segmentation fault" in second.stacks.read()
    assert "crashes_here" in second.stacks.read()
    assert "crashes_here" not in asked(first, waiting)
    assert third.stacks.read() == ""


def test_what_was_cleared_is_not_seen_again(table: SlotTable, run: Run) -> None:
    slot = table.slots[1]
    pid = run(slot, waits_here)
    assert asked(slot, pid).count("waits_here") >= 1
    slot.stacks.clear()
    assert slot.stacks.read() == ""
    # It goes on, is found hanging again, and leaves its stacks once more.
    assert asked(slot, pid).startswith("Current thread")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    slot.stacks.clear()
    os.waitpid(run(slot, crashes_here), 0)
    assert slot.stacks.read().startswith("Fatal Python error: Segmentation fault")
    assert "waits_here" not in slot.stacks.read()


def test_the_innermost_frames_of_a_deep_stack_are_kept(table: SlotTable, run: Run) -> None:
    slot = table.slots[2]
    text = asked(slot, run(slot, lambda: descends(500)))
    assert len(text) <= MAX_BYTES
    assert text.index("waits_here") < text.index("descends")


def among_threads(what: Callable[[], object]) -> None:
    for _ in range(60):
        threading.Thread(target=waits_in_thread, daemon=True).start()
    what()


def waits_in_thread() -> None:
    threading.Event().wait()


def test_the_thread_that_runs_the_handler_comes_before_many_others(table: SlotTable, run: Run) -> None:
    """faulthandler writes the oldest thread last."""
    slot = table.slots[0]
    pid = run(slot, lambda: among_threads(waits_here))
    text = asked(slot, pid)
    assert len(text) <= MAX_BYTES
    assert text.startswith("Current thread")
    assert text.index("waits_here") < text.index("waits_in_thread")
    begin = slot.stacks.end()
    os.kill(pid, DUMP_SIGNAL)
    until(lambda: slot.stacks.read_from(begin) and rests(pid))
    assert slot.stacks.read_from(begin) == text
    _, status = os.waitpid(run(table.slots[1], lambda: among_threads(crashes_here)), 0)
    assert os.WTERMSIG(status) == signal.SIGSEGV
    text = table.slots[1].stacks.read()
    assert re.match(r"Fatal Python error: Segmentation fault\s+Current thread 0x", text)
    assert text.index("crashes_here") < text.index("waits_in_thread")


def test_many_slots_and_children_take_one_descriptor_of_the_parent(run: Run) -> None:
    gc.collect()  # a table that a failed test has left would go in between
    before = open_files()
    table = SlotTable(2000)
    assert len(open_files()) == len(before) + 1
    slot = table.slots[-1]
    os.waitpid(run(slot, crashes_here), 0)
    assert "crashes_here" in slot.stacks.read()
    assert len(open_files()) == len(before) + 1
    del table, slot
    assert open_files() == before


def test_a_fork_that_fails_leaves_nothing_open(table: SlotTable, monkeypatch: pytest.MonkeyPatch) -> None:
    def fork_in_vain() -> int:
        raise BlockingIOError(errno.EAGAIN, "no process is left")

    before = open_files()
    monkeypatch.setattr(os, "fork", fork_in_vain)
    with pytest.raises(BlockingIOError):
        fork(Role.WORKER, table.slots[0], lambda _: 0)
    assert open_files() == before
    assert not faulthandler.is_enabled()
    faulthandler.enable(2)


def test_where_files_may_not_be_long_children_run_without_stacks() -> None:
    def limited() -> tuple[int, str]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        slot = SlotTable(3).slots[2]
        slot.assign(Role.WORKER, 1, deadline=0, now=0)
        _, status = os.waitpid(fork(Role.WORKER, slot, lambda _: 7), 0)
        slot.stacks.clear()
        return os.waitstatus_to_exitcode(status), slot.stacks.read()

    assert apart(limited) == (7, "")


def open_files() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_of_a_crash_its_own_dump_is_read(table: SlotTable, run: Run) -> None:
    """A dump that was asked for before may stand in front of it."""
    slot = table.slots[0]
    pid = run(slot, waits_here)
    until(lambda: slot.phase == Phase.RUNNING)
    os.kill(pid, DUMP_SIGNAL)
    until(slot.stacks.read)
    os.kill(pid, signal.SIGSEGV)
    os.waitpid(pid, 0)
    assert slot.stacks.read().startswith("Fatal Python error: Segmentation fault")
