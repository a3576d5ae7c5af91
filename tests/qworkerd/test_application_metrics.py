"""The files in which prometheus_client keeps the metrics of an application: bounded, and without those of the dead."""

import os
import subprocess
import sys
from pathlib import Path

from qworkerd.process.application_metrics import VARIABLE

#: What a node does: the application is imported, and the worker of a seat is forked, dies and is forked again.
NODE = """
import os
from qworkerd.process import application_metrics
application_metrics.prepare()
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
sold = Counter("shop_sold", "Sold.", ["where"])
started = Gauge("shop_started", "Started.", multiprocess_mode="sum")
modes = ("livesum", "livemax", "liveall")
running = {mode: Gauge(f"shop_{mode}", "Running.", multiprocess_mode=mode) for mode in modes}

def process(body):
    pid = os.fork()
    if pid == 0:
        try:
            body()
        finally:
            os._exit(0)
    return pid

def end(pids):
    assert all(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0 for pid in pids)

def work(number=1, body=lambda: None):
    def begin():
        application_metrics.set_seat(f"worker-{number}")
        sold.labels("worker").inc()
        started.inc()
        for gauge in running.values():
            gauge.inc()
        body()
    return process(begin)

def shown():
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    lines = generate_latest(registry).decode().splitlines()
    print(*sorted(line for line in lines if not line.startswith("#") and not line.endswith(" 0.0")), sep="; ")
"""


def run(script: str, **environment: str) -> list[str]:
    """Return the lines that a node writes."""
    done = subprocess.run(
        [sys.executable, "-c", NODE + script], capture_output=True, text=True, timeout=60, check=False,
        env={name: value for name, value in os.environ.items() if name != VARIABLE} | environment,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_a_replaced_worker_continues_all_but_the_gauges_of_what_lives() -> None:
    """A worker that is killed inside of `track_inprogress` would be in progress for as long as the node lives."""
    lines = run("""
for _ in range(3):
    end([work()])
    shown()
""")
    assert lines == [
        f'shop_liveall{{pid="worker-1"}} 1.0; shop_livemax 1.0; shop_livesum 1.0; '
        f'shop_sold_total{{where="worker"}} {n}.0; shop_started {n}.0'
        for n in (1, 2, 3)
    ]


def test_processes_that_handlers_fork_count_in_files_of_their_own() -> None:
    """Two processes that append to one file damage it, and then no metric of the application is shown."""
    lines = run("""
def forks():
    def count(at):
        for number in range(200):
            sold.labels(f"{at} {number}").inc()
    for _ in range(3):
        end([process(lambda at=at: count(at)) for at in range(4)])
    count("worker")
end([work(1, forks), work(2, forks)])
print(len(list(os.scandir(application_metrics.folder()))))
registry = CollectorRegistry()
MultiProcessCollector(registry)
samples = [sample for family in registry.collect() for sample in family.samples]
values = [sample.value for sample in samples if sample.name == "shop_sold_total"]
print(len(values), sum(values))
""")
    files, found = lines
    assert found == f"{5 * 200 + 1} {2 * (3 * 4 * 200 + 200 + 1)}.0"
    # A counter and four gauges: of the supervisor, of each worker, which has a lock, too, and of four of its forks.
    assert int(files) <= 5 + 2 * (5 + 1 + 4 * 5)


def test_a_folder_of_the_operator_is_shared_with_others_and_as_bounded(tmp_path: Path) -> None:
    """Another service, or another node, keeps its files there; those of dead workers would accumulate."""
    other = tmp_path / "counter_worker-1.db"
    other.write_bytes(b"")
    lines = run(
        """
for _ in range(5):
    end([work()])
print(os.getpid())
""",
        **{VARIABLE: str(tmp_path)},
    )
    seats = {file.stem.rpartition("_")[2] for file in tmp_path.iterdir() if file != other}
    assert seats == {f"qworker-{lines[0]}-{seat}" for seat in ("supervisor", "worker-1")}
    assert other.read_bytes() == b""
