"""A node works in the schema of its application, also if no setting names it."""

from collections.abc import Iterator

import pytest

from qworker.migrations import migrate
from tests.lifecycle.cluster import SOONER, Cluster
from tests.lifecycle.elsewhere import app, where


@pytest.fixture
def elsewhere(cluster: Cluster) -> Iterator[Cluster]:
    migrate(cluster.database.connect(), app.schema)
    yield cluster
    app.close()
    for node in cluster.nodes:
        node.destroy()
    cluster.query("DROP SCHEMA jobs_elsewhere CASCADE")


@pytest.mark.parametrize("options", [(), ("--schema", app.schema)], ids=["of the App", "of both"])
def test_a_node_runs_the_jobs_of_its_application(elsewhere: Cluster, options: tuple[str, ...]) -> None:
    """It polled the schema `qworker` instead, and the jobs waited."""
    environment = {"QWORKER_APP": "tests.lifecycle.elsewhere:app"}
    node = elsewhere.start("--processes", "1", *SOONER, *options, **environment).await_ready()
    assert where.enqueue().wait(20) == "jobs_elsewhere"
    assert elsewhere.value("SELECT count(*) FROM qworker.node") == 0
    assert elsewhere.value("SELECT count(*) FROM jobs_elsewhere.node") == 1
    assert node.stop() == 0
