"""A node that is started with closed descriptors, or with too few of them."""

import pytest

from tests.lifecycle import handlers
from tests.lifecycle.cluster import SOON, SOONER, Cluster


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_closed_standard_descriptors_are_nowhere_and_nothing_of_ours(cluster: Cluster, closed: tuple[int, ...]) -> None:
    closing = " ".join(f"{number}>&-" for number in closed)
    node = cluster.start("--processes", "1", *SOONER, through=["sh", "-c", f'exec "$@" {closing}', "sh"])
    found = handlers.standard_descriptors.enqueue().wait(SOON)
    assert [found[number] for number in closed] == ["/dev/null"] * len(closed)
    assert node.stop() == 0


def test_a_node_with_too_few_files_does_not_start(cluster: Cluster) -> None:
    node = cluster.start("--processes", "1", through=["sh", "-c", 'ulimit -n 16; exec "$@"', "sh"])
    assert node.wait() == 78
    (event,) = node.events("configuration.invalid")
    assert "limit of open files is 16" in event["error"]
    assert cluster.value("SELECT count(*) FROM qworker.node") == 0


def test_the_files_it_asks_for_are_enough(cluster: Cluster) -> None:
    node = cluster.start("--processes", "2", *SOONER, through=["sh", "-c", 'ulimit -n 64; exec "$@"', "sh"])
    assert [job.wait(SOON) for job in [handlers.time_left.enqueue() for _ in range(10)]]
    assert handlers.dies.enqueue("SIGKILL").wait(SOON) == "second attempt"
    assert node.stop() == 0
