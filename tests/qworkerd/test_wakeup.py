"""The bell: a ring reaches whoever waits, in whichever process, and never holds up the ringer."""

import fcntl
import os
import resource
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qworkerd.shared.wakeup import WakeupPipe, readable
from tests.qworkerd.test_signals import state
from tests.waiting import until


@pytest.fixture
def bell() -> WakeupPipe:
    return WakeupPipe()


def rings(bell: WakeupPipe) -> bool:
    return bool(readable([bell.fd], 0.0))


def test_a_ring_is_heard_until_it_is_silenced(bell: WakeupPipe) -> None:
    assert not rings(bell)
    bell.wake()
    bell.wake()
    assert rings(bell)
    bell.clear()
    assert not rings(bell)


def test_silencing_what_does_not_ring_returns_at_once(bell: WakeupPipe) -> None:
    bell.clear()
    assert not rings(bell)


def test_a_bell_that_nobody_hears_can_be_rung_for_ever(bell: WakeupPipe) -> None:
    for _ in range(100_000):
        bell.wake()
    assert rings(bell)


def test_a_waiting_process_wakes(bell: WakeupPipe) -> None:
    waiting, ready = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            os.write(ready, b"!")
            code = 0 if readable([bell.fd], 10.0) else 1
        finally:
            os._exit(code)
    os.read(waiting, 1)
    bell.wake()
    assert os.waitpid(pid, 0)[1] == 0
    os.close(waiting)
    os.close(ready)


def test_a_pipe_that_nobody_refers_to_is_closed() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    pipe = WakeupPipe()
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 2
    del pipe
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_one_ring_wakes_one_of_several_workers(bell: WakeupPipe) -> None:
    """As idle workers wait: a ring for one job must not have them all claim."""
    answers, say = os.pipe()
    pids = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            poll = select.epoll()
            poll.register(bell.fd, select.EPOLLIN | select.EPOLLEXCLUSIVE)
            os.write(say, b"r")
            poll.poll()
            bell.clear()
            os.write(say, b"w")
            signal.pause()
        pids.append(pid)
    ready = b""
    while len(ready) < 4:
        ready += os.read(answers, 4)
    for pid in pids:
        until(state(pid, "S"), what="a worker sleeps")
    bell.wake()
    woken = os.read(answers, 4)
    more = readable([answers], 0.05)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert ready == b"rrrr"
    assert woken == b"w"
    assert not more


def test_descriptors_may_have_high_numbers(bell: WakeupPipe) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, limits[1]), limits[1]))
    high = fcntl.fcntl(bell.fd, fcntl.F_DUPFD, 2000)
    try:
        assert readable([high], 0.0) == []
        bell.wake()
        assert readable([high, bell.fd], 5.0) == [high, bell.fd]
    finally:
        os.close(high)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_signal_rings(bell: WakeupPipe) -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    fd = signal.set_wakeup_fd(bell.write_fd, warn_on_full_buffer=False)
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert readable([bell.fd], 5.0)
    finally:
        signal.set_wakeup_fd(fd)
        signal.signal(signal.SIGUSR1, before)


def test_programs_that_jobs_start_do_not_hold_the_bell(bell: WakeupPipe) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", "import os; print(os.listdir('/proc/self/fd'))"],
        capture_output=True, text=True, check=True, close_fds=False,
    ).stdout  # fmt: skip
    assert f"'{bell.fd}'" not in shown
    assert f"'{bell.write_fd}'" not in shown
