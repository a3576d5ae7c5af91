"""The exporter is a child of the node: it serves, is replaced when it dies, and ends with the node."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from qworker import App
from qworkerd.embedded.ports import free_port
from tests.lifecycle.application import quick
from tests.lifecycle.cluster import SOONER, Cluster
from tests.lifecycle.measuring import sell
from tests.lifecycle.node import Node
from tests.waiting import until


@pytest.fixture
def port() -> int:
    return free_port()


def get(port: int, path: str) -> tuple[int, str]:
    """Return status and text; 0 if nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def value(port: int, name: str, **labels: str) -> float | None:
    for family in text_string_to_metric_families(get(port, "/metrics")[1]):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return float(sample.value)
    return None


def exporter(node: Node) -> int:
    return node.spawned("exporter")


def test_metrics_and_probes_of_a_node(cluster: Cluster, port: int) -> None:
    node = cluster.start("--processes", "2", "--metrics-port", str(port), *SOONER).await_ready()
    node.await_event("exporter.ready")
    assert get(port, "/healthz") == (200, "ok\n")
    until(lambda: get(port, "/readyz")[0] == 200)
    quick.enqueue_many([()] * 50)
    until(lambda: value(port, "qworker_jobs_total", task="quick", outcome="completed") == 50)
    assert value(port, "qworker_database_up") == 1
    until(lambda: value(port, "qworker_workers", phase="idle") == 2)
    until(lambda: value(port, "qworker_nodes") == 1, 30)

    first = exporter(node)
    os.kill(first, signal.SIGKILL)
    node.await_event("exporter.ready", count=2)
    assert exporter(node) != first
    os.kill(node.children("worker")[0], signal.SIGKILL)
    until(lambda: (value(port, "qworker_worker_deaths_total", cause="signal") or 0) >= 2)
    assert value(port, "qworker_jobs_total", task="quick", outcome="completed") == 50
    assert node.stop() == 0
    assert get(port, "/healthz")[0] == 0
    assert not node.events("child.died", cause="shutdown")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_a_scrape_of_a_node_has_no_fault(cluster: Cluster, port: int) -> None:
    environment = {"QWORKER_APP": "tests.lifecycle.measuring:app"}
    node = cluster.start("--processes", "1", "--metrics-port", str(port), *SOONER, **environment).await_ready()
    sell.enqueue_many([()] * 10)
    until(lambda: value(port, "shop_sold_total") == 10)
    until(lambda: value(port, "qworker_nodes") == 1, 30)
    text = get(port, "/metrics")[1]
    found = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
    assert node.stop() == 0


def test_what_goes_wrong_on_a_node_is_counted(cluster: Cluster, port: int) -> None:
    node = cluster.start("--processes", "1", "--metrics-port", str(port), *SOONER).await_ready()
    node.await_event("exporter.ready")
    assert value(port, "qworker_reconnects_total", process="worker") == 0
    cluster.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ '^qworker'")
    quick.enqueue()
    until(lambda: (value(port, "qworker_reconnects_total", process="worker") or 0) >= 1, 30)
    until(lambda: (value(port, "qworker_reconnects_total", process="scheduler") or 0) >= 1, 30)
    until(lambda: (value(port, "qworker_maintenance_seconds_count", action="reconcile") or 0) >= 1, 30)
    events = len(node.events("claim.error")) + len(node.events("scheduler.error"))
    assert events >= 1
    until(lambda: sum(counted(port, "qworker_log_events_total").values()) == warnings(node))
    assert node.stop() == 0


def test_a_paused_node_is_ready_and_says_that_it_is_paused(cluster: Cluster, port: int) -> None:
    node = cluster.start("--processes", "1", "--metrics-port", str(port), *SOONER).await_ready()
    node.await_event("exporter.ready")
    assert value(port, "qworker_node_paused") == 0
    app = App(cluster.database.dsn)
    (status,) = app.admin.nodes()
    app.admin.pause_nodes(status.id)
    until(lambda: value(port, "qworker_node_paused") == 1)
    assert get(port, "/readyz") == (200, "ok\n")
    assert get(port, "/healthz") == (200, "ok\n")
    ping = [sys.executable, "-m", "qworkerd", "ping", "--node", status.name]
    assert subprocess.run(ping, env=os.environ | {"QWORKER_DSN": cluster.database.dsn}, check=False).returncode == 0
    app.admin.resume_nodes(status.id)
    app.close()
    until(lambda: value(port, "qworker_node_paused") == 0)
    assert node.stop() == 0


def counted(port: int, name: str) -> dict[str, float]:
    """Return the samples of a metric by their label `event`."""
    families = text_string_to_metric_families(get(port, "/metrics")[1])
    return {s.labels["event"]: s.value for family in families for s in family.samples if s.name == name}


def warnings(node: Node) -> int:
    """Return how many events the log has that are counted."""
    return sum(event["level"] in ("warning", "error", "critical") for event in node.events())


#: Process 1 of a namespace of its own, as in a container; it is killed with the command.
CONTAINER = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


def contains() -> bool:
    """Return whether this user may make such a namespace."""
    try:
        return subprocess.run([*CONTAINER, "true"], capture_output=True, timeout=60, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not contains(), reason="no namespaces of processes")
def test_a_node_that_is_process_1_of_a_container_serves(cluster: Cluster, port: int) -> None:
    """The exporter ended at once, because it took process 1 for who inherits orphans."""
    node = cluster.start("--processes", "1", "--metrics-port", str(port), *SOONER, through=CONTAINER).await_ready()
    until(lambda: get(port, "/readyz")[0] == 200, 30)
    job = quick.enqueue()
    until(lambda: value(port, "qworker_jobs_total", task="quick", outcome="completed") == 1)
    assert job.refresh().state == "completed"
    (child,) = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGTERM)
    assert node.wait() == 0
    assert len(node.events("exporter.ready")) == 1
    assert not node.events("child.died")


def test_an_exporter_whose_scrapes_hang_is_replaced(cluster: Cluster, port: int, tmp_path: Path) -> None:
    """A filesystem that does not answer would keep all of its threads, and it would serve no metrics any more."""
    os.mkfifo(tmp_path / "counter_silent.db")  # opening it waits for a writer
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "QWORKER_APP": "tests.lifecycle.exporting:app"}
    node = cluster.start("--processes", "1", "--metrics-port", str(port), *SOONER, **environment).await_ready()
    node.await_event("exporter.ready")
    with pytest.raises(OSError, match=r"timed out|closed|reset"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20)
    node.await_event("exporter.scrape_hangs")
    node.await_event("exporter.ready", count=2)
    (tmp_path / "counter_silent.db").unlink()
    until(lambda: value(port, "qworker_database_up") == 1)
    assert node.stop() == 0


def test_a_port_in_use_stops_no_job(cluster: Cluster, port: int) -> None:
    with listening_on(port):
        node = cluster.start("--metrics-port", str(port), *SOONER).await_ready()
        node.await_event("exporter.bind_failed")
        quick.enqueue()
        until(lambda: cluster.value("SELECT count(*) FROM qworker.job_history") == 1)
    node.await_event("exporter.ready", 40)
    assert node.stop() == 0


def listening_on(port: int) -> socket.socket:
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(("127.0.0.1", port))
    taken.listen()
    return taken


def test_metrics_of_the_application_survive_its_workers(cluster: Cluster, port: int, tmp_path: Path) -> None:
    """Their files are bounded by the workers of the node, and are gone with it."""
    environment = {"QWORKER_APP": "tests.lifecycle.measuring:app", "TMPDIR": str(tmp_path)}
    node = cluster.start("--processes", "1", "--metrics-port", str(port), *SOONER, **environment).await_ready()
    for round_ in range(1, 4):
        sell.enqueue_many([()] * 10)
        done = "SELECT count(*) FROM qworker.job_history"
        until(lambda: cluster.value(done) == 10 * round_)  # noqa: B023
        assert value(port, "shop_sold_total") == 10 * round_
        os.kill(node.children("worker")[0], signal.SIGKILL)
        node.await_event("child.died", count=round_)
    assert value(port, "shop_visits_total", shop="a_b") == 60
    assert value(port, "shop_last") == 1
    (folder,) = tmp_path.glob("qworker-metrics-*")
    seats = {file.stem.rpartition("_")[2] for file in folder.iterdir()}
    assert seats <= {"supervisor", "scheduler-0", "worker-1", "exporter-0"}
    assert node.stop() == 0
    assert not folder.exists()
