"""The worker's own steps, where the rest of the world would have to misbehave at the right moment."""

from collections.abc import Iterator
from math import inf
from time import monotonic
from typing import Any

import pytest

from qworker import App
from qworker.claims import ClaimedJob
from qworkerd.config.settings import Settings
from qworkerd.outcomes.outcome import Released
from qworkerd.run import make_node
from qworkerd.shared.claim import Claim, new_token
from qworkerd.shared.header import boottime
from qworkerd.shared.slots import Role
from qworkerd.worker.batch import Batch
from qworkerd.worker.loop import RECHECK_INTERVAL, Worker


@pytest.fixture
def worker() -> Iterator[Worker]:
    node = make_node(App(), Settings(processes=1))
    slot = node.table.slots[0]
    slot.assign(Role.WORKER, 1, inf, 0.0)
    worker = Worker(node, slot)
    yield worker
    worker.poll.close()


def test_a_worker_whose_claims_are_all_held_open_does_not_run_in_circles(worker: Worker) -> None:
    """By rows that somebody else has locked: they are tried again, but not all the time."""
    for claim in worker.slot.claims:
        claim.open(new_token())
    begun = monotonic()
    assert worker.claim() is None
    assert monotonic() - begun >= RECHECK_INTERVAL * 0.9


def test_a_worker_that_sleeps_is_woken_by_a_ring_and_not_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it has to show that it lives: a claim for each would be work for the database."""
    node = make_node(App(), Settings(processes=1, stall_timeout=0.02))
    worker, shown = Worker(node, node.table.slots[0]), 0
    worker.poll.register(node.worker_wakeup.fd)

    def stall() -> float:
        nonlocal shown
        shown += 1
        if shown == 5:
            node.worker_wakeup.wake()
        return monotonic() + 1.0

    monkeypatch.setattr(worker, "stall_deadline", stall)
    worker.wait_for_work()
    worker.poll.close()
    assert shown == 5


def test_a_worker_without_a_lease_claims_nothing(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    header, waited = worker.header, []

    def doze(seconds: float) -> None:
        waited.append(seconds)
        worker.signals.stopping = len(waited) == 3

    def take() -> None:
        raise AssertionError("others may take the same jobs")

    monkeypatch.setattr(worker, "boot", lambda: True)
    monkeypatch.setattr(worker, "close", lambda code: code)
    monkeypatch.setattr(worker, "interruptible_sleep", doze)
    monkeypatch.setattr(worker, "claim", take)
    header.node, header.lease_until = 1, boottime() - 0.001
    assert worker.run() == 0
    assert waited == [RECHECK_INTERVAL] * 3


def test_a_lease_that_runs_out_in_the_midst_of_a_batch_ends_it(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    claim, ran = worker.slot.claims[0], []
    claim.open(new_token())
    rows = [ClaimedJob(n, n, 5, "default", "noop", "{}", 1, 0, False, 0.0, None, 0) for n in range(1, 6)]
    claim.fill([row[0] for row in rows], [0] * 5, [1] * 5)

    def run(_claim: Claim, _place: int, row: tuple[Any, ...], now: float) -> float:
        ran.append(row[0])
        if row[0] == 2:
            worker.header.lease_until = boottime()
        return now

    monkeypatch.setattr(worker.runner, "run", run)
    worker.header.lease_until = boottime() + 60
    worker.work(Batch(claim, rows))
    assert ran == [1, 2]
    assert {job: type(outcome) for _, job, outcome in worker.acknowledger._submitted} == dict.fromkeys(
        (3, 4, 5), Released
    )
