"""What a whole node sends to the database that has nothing to do; tests/qworkerd/test_idle.py counts for longer."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from qworker.migrations import migrate
from qworkerd.embedded import EmbeddedPostgres
from qworkerd.scheduler.loop import QUIET_FACTOR
from tests.database import Database
from tests.lifecycle.cluster import Cluster
from tests.waiting import until

WINDOW = 15.0
#: How often anything may be sent in it besides the polls. The doctor sends two of a kind.
MORE = 3


@pytest.fixture
def server() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres({"log_statement": "all", "log_line_prefix": "%a|", "max_connections": 50}) as server:
        yield server


def test_an_idle_node_polls_and_does_nothing_else(server: EmbeddedPostgres, tmp_path: Path) -> None:
    with psycopg.connect(server.dsn) as conn:
        migrate(conn)

    def sent() -> list[str]:
        lines = (server.folder / "server.log").read_text(errors="replace").splitlines()
        return [
            line for line in lines if line.startswith("qworker ") and ("LOG:  execute" in line or "LOG:  stat" in line)
        ]

    with Cluster(Database(server.dsn), tmp_path) as cluster:
        node = cluster.start("--processes", "8", QWORKER_APP="tests.lifecycle.quiet:app").await_ready()
        until(lambda: cluster.query("SELECT 1 FROM qworker.idle_node"))
        # The tasks that are deferred when a node starts; the checks of the doctor are the last of those.
        until(lambda: any("Indexes that are not used" in line for line in sent()), 30.0)
        before, begun = len(sent()), time.monotonic()
        time.sleep(WINDOW)
        statements, seconds = sent()[before:], time.monotonic() - begun
        assert node.stop() == 0
    assert statements
    assert {line.split()[1] for line in statements} == {"scheduler"}, "workers that wait send nothing"
    (poll, polls), *others = Counter(line.partition(": ")[2][:100] for line in statements).most_common()
    assert "The work that is waiting" in poll
    assert polls <= seconds / QUIET_FACTOR + MORE
    assert all(count <= MORE for _, count in others), others
