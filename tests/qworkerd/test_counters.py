"""Counters that are known by their names, in memory that the processes of a node share."""

import os
import subprocess
import sys
import threading

from qworkerd.shared.counters import MAX_NAMES, NAME_BYTES, OTHER, Counters


def in_child(run: object) -> None:
    """Run a function in a forked process."""
    pid = os.fork()
    if pid == 0:
        try:
            run()  # type: ignore[operator]
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def test_a_replacement_continues_the_counts_of_its_seat() -> None:
    counters = Counters(3)

    def work() -> None:
        counters.bind(1)
        counters.add("warning claim.error", 2)
        counters.add("reconnected worker")

    in_child(work)
    in_child(work)
    counters.bind(0)
    counters.add("reconnected worker", 5)
    assert counters.read() == {"warning claim.error": 4, "reconnected worker": 7}


def test_a_process_that_has_no_seat_counts_nothing() -> None:
    """A handler may fork: the child must not write what its parent writes."""
    counters = Counters(2)
    counters.add("reconnected worker")
    assert counters.read() == {}
    counters.bind(1)
    counters.add("reconnected worker")
    in_child(lambda: counters.add("reconnected worker", 100))
    counters.add("reconnected worker")
    assert counters.read() == {"reconnected worker": 2}


def test_threads_lose_no_count() -> None:
    counters = Counters(1)
    counters.bind(0)

    def work(number: int) -> None:
        for name in range(2_000):
            counters.add(f"warning event.{name % 7}")
            counters.add(f"warning of.thread_{number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    found = counters.read()
    assert sum(found.values()) == 4 * 2 * 2_000
    assert found["warning of.thread_3"] == 2_000


def test_names_without_end_take_no_space_without_end() -> None:
    counters = Counters(1)
    counters.bind(0)
    for number in range(3 * MAX_NAMES):
        counters.add(f"warning event.number_{number}")
    found = counters.read()
    assert len(found) == MAX_NAMES
    assert sum(found.values()) == 3 * MAX_NAMES
    assert found[OTHER] == 2 * MAX_NAMES + 1
    counters.bind(0)
    counters.add("warning another.one")
    assert counters.read()[OTHER] == 2 * MAX_NAMES + 2


def test_hostile_names_are_cut_and_stay_text() -> None:
    counters = Counters(1)
    counters.bind(0)
    names = ["", "\0", "a\0b", "é" * 100, "x" * 1_000, "\ud800", 'quote" , \n \u202e']
    for name in names:
        counters.add(name)
        counters.add(name)
    found = counters.read()
    assert sum(found.values()) == 2 * len(names)
    assert all(len(name.encode()) <= NAME_BYTES for name in found)
    assert found["ab"] == found["x" * NAME_BYTES] == 2


EVENTS = """
import logging, structlog
from qworkerd import log
counted = []
log.configure("json", "info")
log.count_events(lambda level, event: counted.append((level, event)))
log.get().info("node.ready")
log.get().warning("claim.error", error="x")
log.get().error("rescue.failed")
structlog.get_logger().exception("secret of ada@example.com")
logging.getLogger("shop").warning("order.paid")
logging.getLogger("shop").critical("order %s", 17)
log.get().debug("x.y")
print(counted)
"""


def test_only_warnings_and_our_own_names_are_counted() -> None:
    """What others log may be anything, also personal data."""
    done = subprocess.run([sys.executable, "-c", EVENTS], capture_output=True, text=True, timeout=60, check=True)
    assert eval(done.stdout) == [  # noqa: S307 - printed above
        ("warning", "claim.error"), ("error", "rescue.failed"), ("error", "(other)"), ("warning", "(other)"),
        ("critical", "(other)"),
    ]  # fmt: skip
