"""What viewers of the dashboard cost the database, and whether it stays as it is for ever.

    python benchmarks/viewers.py [--viewers 30] [--seconds 30] [--rounds 1] [--only 'job*']
    python benchmarks/viewers.py --drain 20000 --rounds 8
    python benchmarks/viewers.py --polls 300000

By default a node works under load, and `qworker web` serves each page to one viewer and to many in turn. Each opens the
page, and refreshes its regions as the script of the page does, with ETags. The table shows the statements of the
dashboard and the time of the server in them. The bar: many cost at most 1.2 times as much as one.

--drain measures the drain rate of a node with and without viewers in turns; the bar is 0.95. --polls calls the
dashboard in this process, with its clock moved on between the polls, while the database changes, and prints what a leak
would increase; every other request is for something that nobody has asked for before.
"""

import argparse
import fnmatch
import http.client
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any, Self

import fast_polls
from psycopg.conninfo import make_conninfo
from stage import Node, Producers, Stage

from qworkerd.embedded import EmbeddedPostgres

COST, DRAIN = 1.2, 0.95
#: A shop with jobs in each state, groups of errors, schedules and operations.
SHOP = Path(__file__).parent.parent / "tests" / "web" / "realistic.sql"
PAGES = {
    "overview": "/", "queues": "/queues", "queue": "/queue?name=checkout", "jobs": "/jobs",
    "jobs, no index": "/jobs?q=args.order_id:7", "job": "/jobs/901", "job that has ended": "/jobs/2001",
    "errors": "/errors", "error group": "/errors/0000000000001093", "workers": "/workers", "schedules": "/schedules",
    "tasks": "/tasks", "task": "/task?name=shop.mail.newsletter", "operations": "/operations", "audit": "/audit",
    "doctor": "/doctor",
}  # fmt: skip
#: Pages that show what the doctor finds, who is asked once a minute: they are looked at for as long (seconds).
EXAMINED, MINUTE = ("overview", "doctor"), 60.0
REGION = re.compile(r'data-every="([\d.]+)" data-hx-get="([^"]+)"')
SPENT = (
    "SELECT coalesce(sum(calls), 0)::int, coalesce(sum(total_exec_time), 0)"
    "  FROM pg_stat_statements WHERE userid = 'web'::regrole"
)


class Shop(Stage):
    """A server that counts statements, with a shop in it, and a role `web` of the dashboard."""

    def __init__(self) -> None:
        super().__init__()
        self.server = EmbeddedPostgres({"max_connections": 200, "shared_preload_libraries": "pg_stat_statements"})

    def __enter__(self) -> Self:
        super().__enter__()
        for statement in (
            "CREATE EXTENSION pg_stat_statements", "CREATE ROLE web SUPERUSER LOGIN PASSWORD 'web'", SHOP.read_text(),
            # The shop names its nodes' ids.
            "SELECT setval(pg_get_serial_sequence('qworker.node', 'id'), 1000)",
        ):  # fmt: skip
            self.database.execute(statement.encode())
        self.web_dsn = make_conninfo(self.dsn, user="web", password="web")  # noqa: S106 # of this server alone
        return self

    @contextmanager
    def dashboard(self) -> Iterator[int]:
        """Serve the dashboard; gives its port."""
        process = subprocess.Popen(
            [sys.executable, "-m", "qworkerd", "web", "--port", "0"], env={**os.environ, "QWORKER_DSN": self.web_dsn},
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None  # noqa: S101
            yield int(process.stdout.readline().strip().rstrip("/").rpartition(":")[2])
        finally:
            process.terminate()
            process.wait(30)


class Viewer(threading.Thread):
    """A browser with one page open."""

    def __init__(self, port: int, address: str, opens: float, end: float) -> None:
        super().__init__()
        self._port, self._address, self._opens, self._end = port, address, opens, end
        self.took: list[float] = []
        self.wrong: list[str] = []

    def run(self) -> None:
        """Open the page, and refresh it until the end."""
        time.sleep(max(0.0, self._opens - time.monotonic()))
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        _, page = self._get(connection, self._address, "")
        periods = {address.replace("&amp;", "&"): float(every) for every, address in REGION.findall(page)}
        due, tags = {address: time.monotonic() + every for address, every in periods.items()}, dict[str, str]()
        while due and (at := min(due.values())) < self._end:
            time.sleep(max(0.0, at - time.monotonic()))
            for address in [address for address, at in due.items() if at <= time.monotonic()]:
                tags[address], _ = self._get(connection, address, tags.get(address, ""))
                due[address] += periods[address]
        connection.close()

    def _get(self, connection: http.client.HTTPConnection, address: str, tag: str) -> tuple[str, str]:
        began = time.monotonic()
        connection.request("GET", address, headers={"If-None-Match": tag, "Accept-Encoding": "identity"})
        answer = connection.getresponse()
        body = answer.read().decode()
        self.took.append(time.monotonic() - began)
        if answer.status not in {200, 304}:
            self.wrong.append(f"{address}: {answer.status}")
        return answer.getheader("ETag") or tag, body


def watch(port: int, addresses: list[str], viewers: int, begin: float, seconds: float) -> list[Viewer]:
    """Have viewers look at pages for some time."""
    random = Random(viewers)
    found = [
        Viewer(port, addresses[n % len(addresses)], begin + (random.uniform(0, 2) if n else 1), begin + seconds)
        for n in range(viewers)
    ]
    for viewer in found:
        viewer.start()
    return found


def cost(shop: Shop, port: int, address: str, viewers: int, seconds: float) -> tuple[int, float, list[Viewer]]:
    """Return the statements that viewers cost, and the seconds of the server in them."""
    calls, spent = shop.database.execute(SPENT).fetchone() or (0, 0.0)
    # From a multiple of the time on: one viewer and many see the same slots.
    watching = watch(port, [address], viewers, (time.monotonic() // seconds + 1) * seconds, seconds)
    for viewer in watching:
        viewer.join()
    after = shop.database.execute(SPENT).fetchone() or (0, 0.0)
    return after[0] - calls, (after[1] - spent) / 1e3, watching


def costs(shop: Shop, given: Any) -> int:
    """Print what each page costs; return how many have missed the bar."""
    missed = 0
    many = given.viewers
    print(f"| page | statements of 1 | of {many} | ratio | server ms of 1 | of {many} | p95 (ms) of {many} |")
    print("|---|--:|--:|--:|--:|--:|--:|", flush=True)
    with ExitStack() as stack:
        stack.enter_context(Node(shop, 2, "--queues", "default", quiet=True))
        stack.enter_context(Producers(shop, [fast_polls.LOAD]))
        port = stack.enter_context(shop.dashboard())
        for name, address in PAGES.items():
            if not fnmatch.fnmatch(name, given.only):
                continue
            calls: dict[int, int] = dict.fromkeys((1, many), 0)
            spent: dict[int, float] = dict.fromkeys((1, many), 0.0)
            took: list[float] = []
            for turn in range(given.rounds):
                for viewers in ((1, many), (many, 1))[turn % 2]:
                    duration = max(given.seconds, MINUTE if name in EXAMINED else 0)
                    found, seconds, watching = cost(shop, port, address, viewers, duration)
                    calls[viewers] += found
                    spent[viewers] += seconds
                    wrong = [text for viewer in watching for text in viewer.wrong]
                    if wrong:
                        print(f"{len(wrong)} answers are wrong: {wrong[:3]}")
                    took = sorted(one for viewer in watching for one in viewer.took) if viewers == many else took
            ratio = calls[many] / max(1, calls[1])
            missed += ratio > COST
            late = 1e3 * took[-1 - len(took) // 20]
            cells = f"{calls[1]:,} | {calls[many]:,} | {ratio:.2f} | {1e3 * spent[1]:.0f} | {1e3 * spent[many]:.0f}"
            print(f"| {name} | {cells} | {late:.0f} |{' MISSED' if ratio > COST else ''}", flush=True)
    return missed


def drains(shop: Shop, given: Any) -> int:
    """Print the drain rates in turns; return whether their ratio misses the bar."""
    ratios = []
    with shop.dashboard() as port:
        for turn in range(given.rounds):
            rates = {}
            for viewers in ((0, given.viewers), (given.viewers, 0))[turn % 2]:
                shop.clear()
                shop.fill(given.drain)
                # The page of a job is left out: the jobs of the shop are gone.
                open_pages = [address for name, address in PAGES.items() if not name.startswith(("job that", "job,"))]
                watching = watch(
                    port, [page for page in open_pages if page != PAGES["job"]], viewers, time.monotonic(), 20
                )
                # All have opened their pages.
                time.sleep(3)
                rates[viewers] = shop.work_off(given.drain)
                for viewer in watching:
                    viewer.join()
            ratios.append(rates[given.viewers] / rates[0])
            print(f"without {rates[0]:,.0f}/s, with {rates[given.viewers]:,.0f}/s: {ratios[-1]:.3f}", flush=True)
    ratio = statistics.median(ratios)
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    print(f"{given.viewers} viewers: {ratio:.3f} of the rate without ({spread}){' MISSED' if ratio < DRAIN else ''}")
    return ratio < DRAIN


def main() -> int:
    """Measure what the options name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--viewers", type=int, default=30, metavar="N")
    parser.add_argument(
        "--seconds", type=float, default=30, metavar="S", help="how long each page is looked at: a multiple of 30"
    )
    parser.add_argument("--rounds", type=int, default=1, metavar="N")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="names of pages")
    parser.add_argument("--drain", type=int, metavar="JOBS", help="measure the drain rate instead")
    parser.add_argument("--polls", type=int, metavar="N", help="poll so often in fast motion instead")
    given = parser.parse_args()
    # The node, the dashboard and the server end with this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with Shop() as shop:
        if given.polls:
            return fast_polls.run(shop, given.polls, list(PAGES.values()))
        return int(drains(shop, given) if given.drain else costs(shop, given))


if __name__ == "__main__":
    sys.exit(main())
