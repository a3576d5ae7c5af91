"""The worker's own steps, where the rest of the world would have to misbehave at the right moment."""

from collections.abc import Iterator
from math import inf
from time import monotonic

import pytest

from qworker import App
from qworkerd.claim import draw_token
from qworkerd.run import make_node
from qworkerd.settings import Settings
from qworkerd.slots import Role
from qworkerd.worker.loop import PATIENCE, Worker


@pytest.fixture
def worker() -> Iterator[Worker]:
    node = make_node(App(), Settings(processes=1))
    slot = node.table.slots[0]
    slot.occupy(Role.WORKER, 1, inf, 0.0)
    worker = Worker(node, slot)
    yield worker
    worker.poll.close()


def test_a_worker_whose_claims_are_all_held_open_does_not_run_in_circles(worker: Worker) -> None:
    """By rows that somebody else has locked: they are tried again, but not all the time."""
    for claim in worker.slot.claims:
        claim.open(draw_token())
    begun = monotonic()
    assert worker.take() is None
    assert monotonic() - begun >= PATIENCE * 0.9


def test_a_worker_that_sleeps_is_woken_by_a_ring_and_not_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it has to show that it lives: a claim for each would be work for the database."""
    node = make_node(App(), Settings(processes=1, stall_timeout=0.02))
    worker, shown = Worker(node, node.table.slots[0]), 0
    worker.poll.register(node.wake.fd)

    def stall() -> float:
        nonlocal shown
        shown += 1
        if shown == 5:
            node.wake.ring()
        return monotonic() + 1.0

    monkeypatch.setattr(worker, "stall", stall)
    worker.rest()
    worker.poll.close()
    assert shown == 5
