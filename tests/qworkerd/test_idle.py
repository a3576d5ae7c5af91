"""How many statements an idle scheduler sends: the server counts them, on a clock that the test moves."""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from math import ceil, inf
from typing import Any

import psycopg
import pytest

from qworker import App
from qworker.migrations import migrate
from qworkerd.config.settings import Settings
from qworkerd.embedded import EmbeddedPostgres
from qworkerd.run import make_node
from qworkerd.scheduler import loop
from qworkerd.scheduler.activity import QUIET_AFTER
from qworkerd.scheduler.lease import RENEW_INTERVAL
from qworkerd.scheduler.loop import QUIET_FACTOR, Scheduler
from qworkerd.shared.slots import Phase, Role
from tests.qworkerd.clock import Clock

#: The time that is counted (seconds): two runs of the tasks of every ten minutes.
WINDOW = 1_200.0
#: What an idle node may send in a second, with everything that it does at intervals.
MOST = 1.0
#: The statements of each task that does not send one if there is nothing to do. The doctor sets its own time limit, and
#: then that of the session; "reconcile" and "statistics" only look at what the poll and shared memory say.
STATEMENTS = {
    "doctor": 3, "discard": 2, "reconcile": 0, "statistics": 0, "fold wider": 7, "delete statistics": 7,
}  # fmt: skip


@pytest.fixture
def server() -> Iterator[EmbeddedPostgres]:
    """A server that logs every statement with the application that has sent it."""
    with EmbeddedPostgres({"log_statement": "all", "log_line_prefix": "%a|"}) as server:
        yield server


class IdleScheduler:
    """A scheduler of a node with eight workers that wait for jobs. Its time passes only while it waits."""

    def __init__(self, server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self._log = server.folder / "server.log"
        self.clock = Clock()
        with psycopg.connect(server.dsn) as conn:
            migrate(conn)
        for name, module in list(sys.modules.items()):
            if name.startswith("qworkerd.") and vars(module).get("monotonic") is time.monotonic:
                monkeypatch.setattr(module, "monotonic", self.clock)
        monkeypatch.setattr(loop, "wait", self._wait)
        node = make_node(App(), Settings(dsn=server.dsn, processes=8, **settings))
        node.table.header.supervisor_seen_at = inf  # nobody supervises
        own, *workers = node.table.slots[:9]
        own.assign(Role.SCHEDULER, 0, 0.0, 0.0)
        for number, slot in enumerate(workers, 1):
            slot.assign(Role.WORKER, number, 0.0, 0.0)
            slot.enter(Phase.IDLE, inf)
        self.scheduler = Scheduler(node, own)

    def _wait(self, _pipes: object, seconds: float, _fd: int | None = None) -> tuple[()]:
        self.clock.now += max(seconds, 0.0)
        return ()

    def run(self, seconds: float) -> list[str]:
        """Let this much time pass; return the statements that were sent meanwhile."""
        before, end = len(self._statements()), self.clock.now + seconds
        database = self.scheduler.connection.get()
        assert database is not None
        while self.clock.now < end:
            self.scheduler.tick(database)
            self.scheduler.sleep(database)
        return self._statements()[before:]

    def _statements(self) -> list[str]:
        lines = self._log.read_text(errors="replace").splitlines()
        return [
            line for line in lines
            if line.startswith("qworker ") and (" execute " in line or " statement: " in line)
        ]  # fmt: skip


@pytest.mark.parametrize("metrics_port", [None, 9_180])
def test_an_idle_scheduler_sends_at_most_one_statement_a_second(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch, metrics_port: int | None
) -> None:
    idle = IdleScheduler(server, monkeypatch, metrics_port=metrics_port)
    try:
        idle.run(QUIET_AFTER + 60.0)
        assert idle.scheduler.activity.is_quiet
        statements = idle.run(WINDOW)
    finally:
        idle.scheduler.connection.drop()
    polls = [each for each in statements if "The work that is waiting" in each]
    expected = sum(
        ceil(WINDOW / task._quiet_interval) * STATEMENTS.get(task.name, 1) for task in idle.scheduler.maintenance._tasks
    )
    sent = Counter(each.partition("LOG:")[2][:100] for each in statements)
    assert len(polls) == pytest.approx(WINDOW / (RENEW_INTERVAL * QUIET_FACTOR), abs=2)
    assert 0 < len(statements) - len(polls) <= expected, sent
    assert len(statements) / WINDOW <= MOST, sent
