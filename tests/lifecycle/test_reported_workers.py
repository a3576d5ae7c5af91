"""What a node reports of its workers: memory, the running job, and the last death with its cause."""

from qworker.admin import Admin
from qworker.db.pool import Pool
from tests.lifecycle.application import nap, suicide
from tests.lifecycle.cluster import Cluster, reached
from tests.waiting import until


def test_the_memory_of_each_worker_its_job_and_the_last_death_are_reported(cluster: Cluster) -> None:
    cluster.start("--processes", "2").await_ready()
    admin = Admin(Pool(cluster.database.dsn))
    (node,) = until(lambda: [n for n in admin.nodes() if all("rss_mib" in w for w in n.state.get("workers", [{}]))])
    assert node.last_death is None
    assert all(5 < worker["rss_mib"] < 2000 for worker in node.state["workers"])
    reached(suicide.enqueue())
    (node,) = until(lambda: [n for n in admin.nodes() if n.last_death])
    death = node.last_death
    assert death is not None
    assert (death.cause, death.worker in (1, 2)) == ("signal:KILL", True)
    assert death.count >= 1
    assert death.pid not in {worker["pid"] for worker in node.state["workers"]}
    assert node.started_at < death.at <= node.heartbeat_at
    job = nap.enqueue(60)
    (running,) = until(lambda: [w for n in admin.nodes() for w in n.state["workers"] if w.get("job") == job.id])
    assert running["task"] == nap.name
    assert running["ran"] >= 0
    job.cancel()
