"""Dead children: reaped with all they have started, their cause named, their claims kept."""

import os
import signal
import time

import pytest

from qworkerd.process import exits
from qworkerd.shared.cause import Cause
from qworkerd.shared.claim import Entry, Status
from qworkerd.shared.slots import Role, Slot, SlotState, SlotTable
from qworkerd.supervisor.reaper import CauseFinder, ChildExit, expected_exit, keep_or_free_slot, kill_group, reap
from tests.forks import apart
from tests.lifecycle.node import alive
from tests.waiting import until


def reaped(count: int) -> list[ChildExit]:
    """Wait until so many children have died."""
    found: list[ChildExit] = []

    def look() -> bool:
        found.extend(reap())
        return len(found) >= count

    until(look)
    return found


def test_every_dead_child_is_reaped_once_with_its_exit_code() -> None:
    def die() -> tuple[dict[int, int], dict[int, int], int]:
        wanted = {}
        for code in (0, 3, -signal.SIGKILL, -signal.SIGTERM):
            pid = os.fork()
            if pid == 0:
                if code < 0:
                    os.kill(os.getpid(), -code)
                os._exit(code)
            wanted[pid] = code
        deaths = reaped(4)
        return wanted, {death.pid: death.code for death in deaths}, len(list(reap()))

    wanted, found, more = apart(die)
    assert found == wanted
    assert more == 0


def test_a_living_child_is_left_alone() -> None:
    def look() -> tuple[int, bool]:
        pid = os.fork()
        if pid == 0:
            signal.pause()
        deaths = len(list(reap()))
        living = alive(pid)
        os.kill(pid, signal.SIGKILL)
        reaped(1)
        return deaths, living

    assert apart(look) == (0, True)


def test_what_a_dead_child_had_started_in_its_group_dies_with_it() -> None:
    def leave() -> tuple[int, int]:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            grandchild = os.fork()
            if grandchild == 0:
                time.sleep(60)
                os._exit(0)
            os.write(writing, str(grandchild).encode())
            os._exit(0)
        grandchild = int(os.read(reading, 20))
        (death,) = reaped(1)
        return death.code, grandchild

    code, grandchild = apart(leave)
    assert code == 0
    until(lambda: not alive(grandchild), what="the grandchild's end")


def test_a_death_tells_what_it_took() -> None:
    def burn() -> ChildExit:
        if os.fork() == 0:
            filled = bytearray(64 * 2**20)
            end = time.process_time() + 0.05
            while time.process_time() < end:
                pass
            os._exit(0 if filled else 1)
        return reaped(1)[0]

    death = apart(burn)
    assert death.maxrss >= 64
    assert death.cpu >= 0.05


def test_killing_a_group_that_is_gone_is_no_error() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    kill_group(pid)


@pytest.mark.parametrize(
    ("code", "kill_reason", "cause"),
    [
        (-signal.SIGKILL, "timeout", "timeout"),
        (-signal.SIGKILL, "", "signal:KILL"),
        # It died by itself before our sentence could be carried out.
        (-signal.SIGSEGV, "timeout", "signal:SEGV"),
        (1, "", "exit:1"),
    ],
)
def test_our_own_kill_is_reported_from_others(code: int, kill_reason: str, cause: str) -> None:
    assert CauseFinder().cause_of(ChildExit(1, code, 0, 0.0), Cause(kill_reason) if kill_reason else None) == cause


@pytest.mark.parametrize(
    ("code", "runs", "fine"),
    [
        (exits.OK, False, True),
        (exits.RECYCLE, False, True),
        (exits.SOFTWARE, False, False),
        (-signal.SIGKILL, False, False),
        # A handler that calls os._exit(0), or with the code of a worker that is to be replaced.
        (exits.OK, True, False),
        (exits.RECYCLE, True, False),
    ],
)
def test_an_end_is_expected_only_outside_of_handlers(code: int, runs: bool, fine: bool) -> None:
    running = Entry(7, 0, 1, Status.RUNNING) if runs else None
    assert expected_exit(ChildExit(1, code, 0, 0.0), running) is fine


@pytest.fixture
def slot() -> Slot:
    slot = SlotTable(1).slots[0]
    slot.assign(Role.WORKER, 1, deadline=0, now=0)
    return slot


def test_a_child_without_claims_leaves_no_dead_slot(slot: Slot) -> None:
    assert not keep_or_free_slot(slot, "exit:0", ChildExit(1, 0, 0, 0.0))
    assert slot.state is SlotState.FREE


def test_a_child_with_a_claim_leaves_a_dead_slot_even_if_the_claim_has_no_answer_yet(slot: Slot) -> None:
    slot.claims[0].open(99)
    assert keep_or_free_slot(slot, "signal:KILL", ChildExit(1, -9, 33, 0.5))
    assert slot.state is SlotState.DEAD
    assert (slot.cause, slot.maxrss, slot.cpu) == ("signal:KILL", 33, 0.5)
