"""Metrics and probes from the shared memory of a node."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from math import inf
from pathlib import Path
from struct import pack
from time import process_time

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from qworker import App
from qworkerd.config.settings import Settings
from qworkerd.exporter.collector import STALE_AFTER, Collector
from qworkerd.exporter.server import MAX_CLIENTS, MAX_SCRAPES, Server
from qworkerd.metrics.names import BOUNDS, METRICS, samples
from qworkerd.process import application_metrics
from qworkerd.run import make_node
from qworkerd.shared.board import MAX_BYTES, Board
from qworkerd.shared.cause import Cause
from qworkerd.shared.claim import UNKNOWN_TASK, Status
from qworkerd.shared.context import NodeContext
from qworkerd.shared.header import boottime
from qworkerd.shared.series import PROCESS
from qworkerd.shared.slots import Phase, Role, Slot
from qworkerd.shared.tally import Counter, ProcessCounter
from tests.waiting import until

DOCS = Path(__file__).parents[2] / "docs" / "monitoring"
CLUSTER = {
    "queues": {"mail": {"available": 3, "due": 1, "scheduled": 2, "running": 1, "failed": 0, "oldest": 4.5}},
    "workers": {"default": 2}, "paused": ["mail"], "nodes": 1, "enqueued": 42, "horizon": 1.5, "bytes": {"job": 8192},
    "late": {'shop "daily"': 12.5}, "findings": [["unserved-queue", "stops", 2]],
}  # fmt: skip


def leave(node: NodeContext, age: float = 0.0) -> None:
    """Leave the state of the cluster, as the scheduler does, `age` seconds ago."""
    node.board.write(json.dumps(CLUSTER | {"read_at": boottime() - age}))


@pytest.fixture
def node() -> NodeContext:
    return make_node(App(), Settings(processes=8))


def render(node: NodeContext) -> str:
    registry = CollectorRegistry()
    registry.register(Collector(node))
    return generate_latest(registry).decode()


def values(node: NodeContext) -> dict[tuple[str, ...], float]:
    """Return the samples by name and the values of their labels, in the order of the labels' names."""
    families = text_string_to_metric_families(render(node))
    return {
        (s.name, *(s.labels[name] for name in sorted(s.labels))): s.value for family in families for s in family.samples
    }


def test_counts_become_metrics(node: NodeContext) -> None:
    tally = node.tally.writer(1)
    send = tally.numbers["mail", 'se"nd\n']
    tally.succeed(send, [0.0005, 0.002, 5.0], [0.5])
    tally.attempt(send, Counter.RAISED, 0.1, 2.0)
    tally.attempt(send, Counter.OOM, 0.1, None)
    tally.count(send, Counter.FAILED, 2)
    tally.claimed(3, 0.004)
    tally.acknowledged(0.002)
    node.tally.writer(9).died(Cause.SIGNAL.detailed("SEGV"), 1.5, expected=False)
    found = values(node)
    labels = ("mail", 'se"nd\n')
    assert found["qworker_jobs_total", "completed", *labels] == 3
    assert found["qworker_jobs_total", "failed", *labels] == 2
    assert found["qworker_attempts_total", "crashed", *labels] == 1
    assert found["qworker_attempts_total", "failed", *labels] == 1
    assert found["qworker_job_wait_seconds_bucket", "0.001", *labels] == 1
    assert found["qworker_job_wait_seconds_bucket", "0.004", *labels] == 2
    assert found["qworker_job_wait_seconds_bucket", "+Inf", *labels] == 5
    assert found["qworker_job_run_seconds_count", *labels] == 4
    assert found["qworker_job_run_seconds_sum", *labels] == pytest.approx(2.5, abs=0.01)
    assert found["qworker_claims_total", "some"] == 1
    assert found["qworker_worker_deaths_total", "signal"] == 1
    assert found["qworker_worker_cpu_seconds_total",] == pytest.approx(1.5, abs=0.1)


def test_the_names_are_those_of_the_list(node: NodeContext) -> None:
    node.tally.writer(1).succeed(node.tally.numbers["mail", "send"], [0.1], [])
    leave(node)
    node.counters.bind(0)
    for counter in ("ran fold", "took fold", "warning claim.error"):
        node.counters.add(counter)
    found = values(node)
    names = {name for name, *_ in found if not name.endswith("_created")}
    missing = {"qworker_jobs_running", "qworker_job_running_seconds_max"}  # no job runs
    assert names | missing == samples().keys()
    assert all(name in render(node) for name in METRICS)


def test_the_cluster_is_what_the_scheduler_left(node: NodeContext) -> None:
    assert not any(name == "qworker_nodes" for name, *_ in values(node))
    leave(node)
    found = values(node)
    assert found["qworker_queue_jobs", "mail", "qworker", "available"] == 3
    assert found["qworker_queue_workers", "mail", "qworker"] == 0
    assert found["qworker_queue_workers", "default", "qworker"] == 2
    assert found["qworker_queue_paused", "mail", "qworker"] == 1
    assert found["qworker_jobs_enqueued_total", "qworker"] == 42
    assert found["qworker_schedule_late_seconds", 'shop "daily"', "qworker"] == 12.5
    assert found["qworker_doctor_findings", "unserved-queue", "qworker", "stops"] == 2


def test_an_old_state_of_the_cluster_is_not_exported(node: NodeContext) -> None:
    """A node without its database would report what was true once, and `max without (instance)` would find it."""
    leave(node, age=STALE_AFTER + 1)
    found = {name for name, *_ in values(node)}
    assert not found & {
        "qworker_nodes",
        "qworker_queue_jobs",
        "qworker_queue_oldest_seconds",
        "qworker_doctor_findings",
    }
    leave(node, age=STALE_AFTER / 2)
    assert values(node)["qworker_nodes", "qworker"] == 1


@pytest.mark.parametrize(("lease", "left", "up"), [(30, 28, 1), (30, 22, 0), (5, 3, 1), (5, 0, 0), (5, -1, 0)])
def test_the_database_is_down_without_a_renewal(lease: float, left: float, up: int) -> None:
    node = make_node(App(), Settings(processes=1, lease_timeout=lease))
    header = node.table.header
    assert values(node)["qworker_database_up",] == 0
    header.node, header.lease_until = 1, boottime() + left
    assert values(node)["qworker_database_up",] == up


@pytest.mark.parametrize(
    ("setting", "shown"), [("queue,task", {("mail", "a"), ("mail", "b"), ("sms", "a")}),
                           ("queue", {("mail",), ("sms",)}), ("task", {("a",), ("b",)})],
)  # fmt: skip
def test_series_are_added_up_over_the_labels_that_are_left_out(setting: str, shown: set[tuple[str, ...]]) -> None:
    node = make_node(App(), Settings(processes=2, metrics_labels=setting))
    for seat, names in enumerate((("mail", "a"), ("mail", "b"), ("sms", "a"))):
        node.tally.writer(seat).succeed(node.tally.numbers[names], [0.1, 0.2], [1.0])
        running(node, seat, *names)
    found = values(node)
    completed = {key[2:]: value for key, value in found.items() if key[:2] == ("qworker_jobs_total", "completed")}
    assert completed.keys() == shown
    assert sum(completed.values()) == 6
    assert sum(value for key, value in found.items() if key[0] == "qworker_job_run_seconds_count") == 6
    assert {key[1:] for key in found if key[0] == "qworker_jobs_running"} == shown
    assert sum(value for key, value in found.items() if key[0] == "qworker_jobs_running") == 3
    assert {key[1:] for key in found if key[0] == "qworker_job_running_seconds_max"} == shown


def running(node: NodeContext, number: int, queue: str, task: str) -> None:
    """Let a worker run a job."""
    slot = node.table.slots[number]
    slot.assign(Role.WORKER, number, inf, 0.0)
    claim = slot.claims[0]
    claim.open(7)
    claim.fill([1, 2], [UNKNOWN_TASK] * 2, [1, 1])
    claim.count_as([node.tally.numbers[queue, task]] * 2, [0.0, 0.0])
    claim.statuses[0] = Status.RUNNING
    slot.enter(Phase.RUNNING, inf)


def test_processor_time_does_not_fall_while_the_death_of_a_worker_is_counted(node: NodeContext) -> None:
    """Prometheus takes a counter that falls for a restart, and all of its value for an increase."""
    slot = node.table.slots[0]
    slot.assign(Role.WORKER, 1, inf, 0.0)
    slot.words[Slot.PID] = os.getpid()
    registry = CollectorRegistry()
    registry.register(Collector(node))

    def exported() -> float:
        value = registry.get_sample_value("qworker_worker_cpu_seconds_total")
        assert value is not None
        return value

    alive = exported()
    assert alive > 0.1
    slot.free()  # reaped, and not counted yet
    assert exported() >= alive
    node.tally.writer(9).died(Cause.SIGNAL.detailed("KILL"), alive + 1, expected=False)
    assert alive + 1 <= exported() < alive + 1.5


def test_a_damaged_number_of_a_series_stops_no_scrape(node: NodeContext) -> None:
    running(node, 0, "mail", "send")
    node.table.slots[0].claims[0]._series[0] = 60_000
    assert values(node)["qworker_jobs_running", "(other)", "unknown"] == 1


def test_what_processes_count_by_name_becomes_metrics(node: NodeContext) -> None:
    assert values(node)["qworker_reconnects_total", "worker"] == 0
    assert values(node)["qworker_nodes_lost_total",] == 0
    node.counters.bind(3)
    node.reconnected("worker")
    for _ in range(4):
        node.counters.add("ran fold wider")
    node.counters.add("took fold wider", 1_500_000)
    node.counters.add("failed fold wider")
    node.counters.add("error node.dead", 2)
    node.tally.writer(0).count(PROCESS, ProcessCounter.NODES_LOST)
    found = values(node)
    assert found["qworker_reconnects_total", "worker"] == 1
    assert found["qworker_reconnects_total", "scheduler"] == 0
    assert found["qworker_maintenance_seconds_sum", "fold wider"] == 1.5
    assert found["qworker_maintenance_seconds_count", "fold wider"] == 4
    assert found["qworker_maintenance_errors_total", "fold wider"] == 1
    assert found["qworker_log_events_total", "node.dead", "error"] == 2
    assert found["qworker_nodes_lost_total",] == 1


def test_a_scrape_of_200_tasks_takes_less_than_150_ms(node: NodeContext) -> None:
    writers = [node.tally.writer(seat) for seat in range(9)]
    for task in range(200):
        series = node.tally.numbers["default", f"shop.tasks.task{task}"]
        for writer in writers:
            writer.succeed(series, [0.001 * 2**n for n in range(20)], [0.001 * 2**n for n in range(20)])
    taken = []
    for _ in range(5):
        began = process_time()  # other tests may use the processors
        render(node)
        taken.append(process_time() - began)
    assert min(taken) < 0.15


def test_replaced_workers_add_nothing(node: NodeContext) -> None:
    series = node.tally.numbers["mail", "send"]
    node.tally.writer(1).count(series, Counter.FAILED)
    before = len(render(node).splitlines())
    for _ in range(1_000):
        node.tally.writer(1).count(series, Counter.FAILED)
    assert len(render(node).splitlines()) == before
    assert values(node)["qworker_jobs_total", "failed", "mail", "send"] == 1_001


def test_a_text_on_the_board_is_replaced() -> None:
    board = Board()
    assert board.read() == ""
    assert board.write("first")
    assert board.write("é")
    assert not board.write("x" * (MAX_BYTES + 1))
    assert board.read() == "é"


@pytest.fixture
def server(node: NodeContext) -> Iterator[Server]:
    server = Server(node, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def get(server: Server, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_probes_tell_a_healthy_node_from_another(server: Server, node: NodeContext) -> None:
    header = node.table.header
    assert get(server, "/healthz")[0] == 503
    header.supervisor_seen_at = boottime()
    assert get(server, "/healthz") == (200, "ok\n")
    status, problems = get(server, "/readyz")
    assert (status, problems) == (503, "the node has no lease; no worker is ready\n")
    header.node, header.lease_until = 1, boottime() + 20
    slot = node.table.slots[0]
    slot.assign(Role.WORKER, 1, inf, 0.0)
    slot.enter(Phase.IDLE, inf)
    assert get(server, "/readyz") == (200, "ok\n")
    header.draining = True
    assert get(server, "/readyz")[0] == 503
    assert slot.words[Slot.PHASE] == Phase.IDLE


def test_only_these_paths_are_served(server: Server) -> None:
    assert get(server, "/")[0] == 404
    status, text = get(server, "/metrics?x=1")
    assert status == 200
    assert "# TYPE qworker_workers gauge" in text


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.server_port), timeout=10)


def ended(client: socket.socket) -> bool:
    """Return whether the server has ended a connection, which is still open at this end."""
    client.settimeout(0)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_slow_clients_keep_nobody_out(server: Server) -> None:
    """A thousand clients that send nothing: threads are bounded, and a probe is answered meanwhile."""
    before = threading.active_count()
    with ExitStack() as stack:
        clients = []
        for number in range(1_000):
            clients.append(stack.enter_context(connect(server)))
            clients[-1].sendall(b"GET /metrics HT")
            if number % 100 == 99:
                assert get(server, "/")[0] == 404
        assert threading.active_count() - before <= 2 * MAX_CLIENTS + 2
        assert get(server, "/metrics")[0] == 200
        until(lambda: sum(map(ended, clients)) >= 1_000 - 2 * MAX_CLIENTS)
    until(lambda: threading.active_count() <= before)


def test_a_client_that_drips_is_disconnected(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qworkerd.exporter.server.REQUEST_TIMEOUT", 0.2)
    with connect(server) as client:
        client.sendall(b"G")
        until(lambda: len(server._clients) == 1)

        def dripped() -> bool:
            server.disconnect_overdue()
            with suppress(OSError):
                client.send(b"E")
            return ended(client)

        until(dripped)
    until(lambda: not server._clients)
    assert get(server, "/metrics")[0] == 200


def test_probes_are_answered_while_scrapes_are_not(server: Server, node: NodeContext) -> None:
    node.table.header.supervisor_seen_at = boottime()
    for _ in range(MAX_SCRAPES):
        assert server._free.acquire(blocking=False)
    assert get(server, "/metrics")[0] == 503
    assert get(server, "/healthz") == (200, "ok\n")


@pytest.mark.parametrize(
    "request_", [
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", b"GET /metrics HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"POST /metrics HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n", b"\0\xff\xfe\r\n\r\n", b"GET\r\n\r\n",
        b"GET /metrics HTTP/9.9\r\n\r\n", b"GET http://elsewhere/metrics HTTP/1.1\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\n\r\n", b"GET /metrics HTTP/1.1\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
    ],
)  # fmt: skip
def test_hostile_requests_are_refused(server: Server, request_: bytes) -> None:
    with connect(server) as client, suppress(OSError):
        client.sendall(request_)
        answer = client.recv(65_536)
        assert b" 200 " not in answer.partition(b"\r\n")[0]
    assert get(server, "/metrics")[0] == 200


@pytest.mark.parametrize("accept", ["", ",", ";;q=", "application/openmetrics-text; version=\xff", "a" * 9_000,
    "application/openmetrics-text;version=1.0.0;escaping=", "text/plain;version=1.0.0;escaping=nonsense"])  # fmt: skip
def test_any_accept_header_gets_an_answer(server: Server, accept: str) -> None:
    with connect(server) as client:
        client.sendall(f"GET /metrics HTTP/1.1\r\nAccept: {accept}\r\n\r\n".encode("latin-1"))
        assert b" 200 " in client.recv(64)


def test_ipv6(node: NodeContext) -> None:
    with suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        server = Server(node, "::1", 0)
        assert server.address_family == socket.AF_INET6
        server.server_close()


def test_the_name_of_the_address_is_not_looked_up(node: NodeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object) -> str:
        raise AssertionError("the name server does not answer")

    monkeypatch.setattr(socket, "getfqdn", hang)
    monkeypatch.setattr(socket, "gethostbyaddr", hang)
    Server(node, "0.0.0.0", 0).server_close()


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text; version=1.0.0"])
def test_broken_metrics_of_the_application_hide_none_of_ours(
    node: NodeContext, tmp_path: Path, accept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(application_metrics.VARIABLE, str(tmp_path))
    server = Server(node, "127.0.0.1", 0)
    try:
        whole = server.answer("/metrics", accept)[2]
        # The size in use, and a key that is not JSON, with its size, padding, value and time.
        key = b"not JSON "
        (tmp_path / "counter_worker-1.db").write_bytes(pack("ii", 40, 0) + pack("i9s", 9, key) + b" " * 35)
        status, _, broken = server.answer("/metrics", accept)
        assert status == 200
        assert server._application_failed
        assert b"qworker_workers{" in broken
        for text in (whole, broken):
            assert text.count(b"# EOF") == text.endswith(b"# EOF\n") == ("openmetrics" in accept)
        (tmp_path / "counter_worker-1.db").unlink()
        assert server.answer("/metrics", accept)[0] == 200
        assert not server._application_failed
    finally:
        server.server_close()


def test_a_folder_that_does_not_exist_hides_only_the_metrics_of_the_application(
    node: NodeContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable may be inherited from a service that uses it. The exporter ended at its start, again and again."""
    monkeypatch.setenv(application_metrics.VARIABLE, str(tmp_path / "nowhere"))
    server = Server(node, "127.0.0.1", 0)
    try:
        status, _, text = server.answer("/metrics", "")
    finally:
        server.server_close()
    assert status == 200
    assert b"qworker_workers{" in text


TMPFILES = """
import fcntl, os, shutil
from qworkerd.process import application_metrics
application_metrics.prepare()
folder = application_metrics.folder()
descriptor = os.open(folder, os.O_RDONLY)
try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print("not locked")
except BlockingIOError:
    print("locked")
import prometheus_client
shutil.rmtree(folder)
application_metrics.set_seat("worker-1")
counter = prometheus_client.Counter("sold", "Sold.")
counter.inc()
print(os.listdir(folder))
"""


def test_the_folder_of_metrics_survives_the_cleaning_of_tmp() -> None:
    """Without it, each handler that changes a metric would fail in the next worker."""
    done = subprocess.run([sys.executable, "-c", TMPFILES], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["locked", "['counter_worker-1.db']"]


NAME = re.compile(r"\bqworker_\w+")


def test_the_dashboard_uses_exported_names() -> None:
    board = json.loads((DOCS / "dashboard.json").read_text())
    used = {name for panel in board["panels"] for target in panel["targets"] for name in NAME.findall(target["expr"])}
    assert len(board["panels"]) > 10
    assert used
    assert used <= samples().keys()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_understands_dashboard_and_alerts(tmp_path: Path) -> None:
    board = json.loads((DOCS / "dashboard.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    for variable, text in {"$__rate_interval": "5m", "$queue": ".*"}.items():
        queries = [query.replace(variable, text) for query in queries]
    rules = [{"record": f"dashboard:query{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "dashboard.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", DOCS / "alerts.yaml", tmp_path / "dashboard.yaml"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SUCCESS: {len(rules)} rules found" in done.stdout


def test_the_alerts_use_exported_names_and_labels() -> None:
    (group,) = yaml.safe_load((DOCS / "alerts.yaml").read_text())["groups"]
    known = samples()
    for rule in group["rules"]:
        used = NAME.findall(rule["expr"])
        assert used
        for name in used:
            assert name in known, (rule["alert"], name)
        labels = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert labels <= {"instance"}.union(*(known[name].labels for name in used)), rule["alert"]
    assert BOUNDS[0] == 0.001
