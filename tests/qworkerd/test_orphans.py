"""What an orphaned scheduler does with the workers: kill them and mark their slots dead, and no others."""

import os
import signal

import pytest

from qworkerd.process.proc import start_ticks
from qworkerd.scheduler import orphans
from qworkerd.scheduler.orphans import end_workers
from qworkerd.shared.slots import Role, Slot, SlotState, SlotTable
from tests.lifecycle.node import alive
from tests.waiting import until


@pytest.fixture
def table() -> SlotTable:
    return SlotTable(4)


def work(slot: Slot, role: Role = Role.WORKER) -> tuple[int, int]:
    """Have a process of its own group live in a slot, with a subprocess; return their pids."""
    slot.assign(role, 1, deadline=0, now=0)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        if subprocess := os.fork():
            os.write(writing, str(subprocess).encode())
        signal.pause()
    slot.words[Slot.PID], slot.words[Slot.START_TICKS] = pid, start_ticks(pid) or 0
    return pid, int(os.read(reading, 20))


def end(pid: int) -> None:
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_workers_die_with_all_they_have_started_and_leave_dead_slots(table: SlotTable) -> None:
    workers = [work(table.slots[0]), work(table.slots[1])]
    scheduler, _ = work(table.slots[2], Role.SCHEDULER)
    end_workers(table)
    assert [slot.state for slot in table] == [SlotState.DEAD, SlotState.DEAD, SlotState.LIVE, SlotState.FREE]
    assert table.slots[0].cause == "supervisor-lost"
    assert alive(scheduler)
    end(scheduler)
    for worker, _ in workers:
        os.waitpid(worker, 0)
    until(lambda: not any(alive(subprocess) for _, subprocess in workers), what="the end of what workers had started")


def test_a_slot_that_is_somebody_elses_by_now_is_left_alone(table: SlotTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor that was only frozen reaps the killed worker and forks another, which may get the same slot."""
    slot = table.slots[0]
    killed, _ = work(slot)
    replaced: list[int] = []

    def supervise(_: float) -> None:
        os.waitpid(killed, 0)
        slot.free()
        replaced.append(work(slot)[0])

    monkeypatch.setattr(orphans, "alive", lambda pid, _: pid == killed and not replaced)
    monkeypatch.setattr(orphans, "sleep", supervise)
    end_workers(table)
    (successor,) = replaced
    assert slot.state is SlotState.LIVE
    assert alive(successor)
    end(successor)
