"""The reads of the command line, `top` and the web page on ten million unfinished and ten million finished jobs.

    python benchmarks/large.py [--jobs 10000000] [--rounds 20] [--dsn DSN] [--only 'list*']
        [--in quiet load snapshot]

The database is filled in five minutes (`crowd.py`; 6 GB), or an earlier one is named by --dsn. Each read is then made
again and again: with nothing else to do; under load; and under load with a snapshot that is held open, after 20,000
jobs have ended and as many were enqueued behind it. The load is a node of two workers whose jobs compute for 2 ms and
wait for 3 ms (`large_tasks.py`), which runs up to 400 of them a second, and a process that enqueues up to 400 a second.
The reads take turns with both on the processors. The bar: 200 ms for the 95th percentile, and no statement over 2 s.
"""

import argparse
import fnmatch
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from itertools import chain
from typing import Self

import psycopg
from crowd import fill
from stage import Node, Producers, Stage, until
from tasks import app

from qworker.backlogs import Backlogs
from qworker.cluster import Cluster
from qworker.db.connection import connect
from qworker.depth import Depths
from qworker.filters import parse
from qworker.search import Order, Search
from qworker.statistics import PERIODS, STEPS, Statistics
from qworker.timetable import timetable
from qworkerd.web import application, create_app, everybody
from qworkerd.web.shared import Shared

BAR, LONGEST = 0.2, 2.0
#: How many jobs a held snapshot keeps.
BEHIND = 20_000
SITUATIONS = ("quiet", "load", "snapshot")
#: Time after which a read is not repeated (seconds).
PATIENCE = 10.0
#: Filters that a search is measured with, by the name of the row.
FILTERS = {
    "all": "",
    "available": "state:available",
    "available of a queue": "state:available queue:mail",
    "running": "state:running",
    "failed": "state:failed",
    "failed of a task": "state:failed task:app.task_50",
    "failed of a group": "state:failed fp:0000000000000007",
    "scheduled": "state:scheduled",
    "retrying": "state:retrying",
    "completed of a task": "state:completed task:app.task_7",
    "rare task": "task:app.task_7",
    "rare queue": "queue:rare",
    "rare tag": "tag:rare",
    "argument": "args.user:77 task:app.*",
    "message": "message:lost",
    "cancelled an hour ago": "state:cancelled finished:>1h",
    "nothing": "task:absent",
    "nothing failed": "state:failed task:absent",
}

#: Addresses of the dashboard.
PAGES = (
    "/", "/?period=24h", "/?period=7d", "/?period=30d", "/queues", "/queue?name=bulk", "/queue?name=bulk&period=30d",
    "/jobs", "/jobs?q=state:failed", "/jobs?q=state:failed+task:app.task_50", "/jobs?q=args.user:77+task:app.*",
    "/jobs?order=slowest", "/jobs?order=oldest", "/jobs/arguments.json?word=args.", "/errors",
    "/errors/0000000000000007", "/workers", "/schedules", "/tasks", "/tasks?period=30d", "/task?name=app.task_7",
    "/operations", "/audit", "/doctor",
)  # fmt: skip

#: The watermarks of a node: the lowest seq of each lane that is available.
LANES = """
SELECT q, 5, coalesce((SELECT j.seq - 1 FROM qworker.job AS j
                        WHERE j.state = 'available' AND j.queue = q AND j.priority = 5 ORDER BY j.seq LIMIT 1), 0)
  FROM unnest(ARRAY['bulk', 'default', 'mail']) AS q
"""

ENQUEUER = """
import time
from large_tasks import bulk_import
while True:
    bulk_import.enqueue_many([{"user": number} for number in range(20)])
    time.sleep(0.05)
"""


class Filled(Stage):
    """A database that was filled before."""

    def __init__(self, dsn: str) -> None:
        self.dsn = app.pool.dsn = dsn

    def __enter__(self) -> Self:
        self.database = psycopg.connect(self.dsn, autocommit=True)
        return self

    def __exit__(self, *_: object) -> None:
        app.close()
        self.database.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--jobs", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--dsn", help="of a database that this program has filled before")
    parser.add_argument("--only", default="*", help="a pattern of the names of reads")
    parser.add_argument("--in", dest="situations", nargs="+", default=SITUATIONS, choices=SITUATIONS)
    given = parser.parse_args()
    with Stage() if given.dsn is None else Filled(given.dsn) as stage:
        if given.dsn is None:
            fill(stage.database, given.jobs)
        missed = 0
        if "quiet" in given.situations:
            missed += run("quiet", stage, given.only, given.rounds)
        if {"load", "snapshot"} & set(given.situations):
            with loaded(stage):
                if "load" in given.situations:
                    missed += run("under load", stage, given.only, given.rounds)
                if "snapshot" in given.situations:
                    with stage.holding():
                        held = stage.behind()
                        until(
                            lambda: all(n - then >= BEHIND for then, n in zip(held, stage.behind(), strict=True)), 0.5
                        )
                        missed += run("under load and a held snapshot", stage, given.only, given.rounds)
    print(f"{missed} missed")
    return int(missed > 0)


@contextmanager
def loaded(stage: Stage) -> Iterator[None]:
    """Have a node work off the backlog, and a process enqueue."""
    with ExitStack() as stack:
        node = stack.enter_context(Node(stage, 2, "--queues", "default,bulk,mail", tasks="large_tasks:app", quiet=True))
        stack.enter_context(Producers(stage, [ENQUEUER]))
        until(lambda: node.lives() and stage.begun())
        yield
        node.lives()


def run(situation: str, stage: Stage, pattern: str, rounds: int) -> int:
    """Make each read, print what it took, and return how many have missed the bar."""
    missed = 0
    done, since = stage.behind(), time.monotonic()
    print(f"\n## {situation}\n\n| read | p50 (ms) | p95 (ms) | max (ms) |\n|---|--:|--:|--:|", flush=True)
    for name, read in chain(reads(stage), pages(stage)):
        if not fnmatch.fnmatch(name, pattern):
            continue
        took = []
        for _ in range(rounds):
            began = time.perf_counter()
            try:
                read()
            except psycopg.Error as error:
                print(name, error)
            took.append(time.perf_counter() - began)
            if sum(took) > PATIENCE:
                break
        took.sort()
        p95 = took[-1 - len(took) // 20]
        late = p95 > BAR or took[-1] > LONGEST
        missed += late
        cells = " | ".join(f"{1e3 * seconds:.0f}" for seconds in (statistics.median(took), p95, took[-1]))
        print(f"| {name} | {cells} |{' MISSED' if late else ''}", flush=True)
    enqueued, ended = ((n - then) / (time.monotonic() - since) for then, n in zip(done, stage.behind(), strict=True))
    print(f"\n{enqueued:.0f} jobs enqueued and {ended:.0f} ended a second", flush=True)
    return missed


def reads(stage: Stage) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the reads by name."""
    admin, database = app.admin, connect(stage.dsn, "reads")
    search, counted = Search(app.pool), Statistics()
    for name, text in FILTERS.items():
        wanted = parse(text)
        yield f"list: {name}", lambda w=wanted: search.page(w)
        yield f"count: {name}", lambda w=wanted: search.count(w)
        yield f"find: {name}", lambda w=wanted: search.page(w, order=Order.OLDEST)
    yield "list: slowest", lambda: search.page(parse("state:completed"), order=Order.SLOWEST)
    yield (
        "list: second page",
        lambda: search.page(parse("state:failed"), cursor=search.page(parse("state:failed")).cursor),
    )
    yield "App.jobs: failed", lambda: list(app.jobs(state="failed", limit=50))
    yield "App.jobs: completed of a task", lambda: list(app.jobs(state="completed", task="app.task_7", limit=50))
    yield "last id", search.last_id
    yield "queues", admin.queues
    yield "paused", admin.paused
    yield "nodes", admin.nodes
    yield "schedules", admin.schedules
    yield "depth: newest", lambda: Depths().newest(database)
    lanes = database.execute(LANES).fetchall()
    yield "depth: sample", lambda: sample(database, lanes)
    yield "depth: sample without lanes", lambda: sample(database, [("bulk", 5, 2**62)])
    yield "depth: gauges of the cluster", lambda: Cluster().gauges(database)
    yield "depth: load", lambda: counted.load(database)
    yield "backlogs", lambda: Backlogs().read(database)
    yield "schedules: timetable", lambda: timetable(admin.schedules(), None)
    yield "depth: backlog()", lambda: stage.value("SELECT qworker.backlog('bulk')")
    for period, seconds in PERIODS.items():
        yield f"statistics: tasks, {period}", lambda s=seconds: counted.tasks(database, s)
        yield f"statistics: queues, {period}", lambda s=seconds: counted.queues(database, s)
        yield f"statistics: chart, {period}", lambda s=seconds, p=period: counted.chart(database, s, STEPS[p])
    yield "statistics: depths, 7d", lambda: counted.depths(database, PERIODS["7d"], step=3600.0)
    yield "statistics: depths, 1h", lambda: counted.depths(database, PERIODS["1h"], step=60.0)
    yield "statistics: deployments", lambda: counted.deployments(database, PERIODS["7d"])
    yield "errors: groups", admin.error_groups
    yield "errors: one", lambda: admin.error_group("0000000000000007")
    yield "errors: failed of one", lambda: admin.count_failed_of("0000000000000007")
    yield "audit", admin.audit
    yield "audit of a job", lambda: admin.audit(job=2_500_000)
    yield "audit of an actor", lambda: admin.audit(actor="user-7", action="queue.pause")
    for state in ("available", "failed", "scheduled", "completed"):
        (page,) = [search.page(parse(f"state:{state}" + (" queue:bulk" if state == "available" else "")), limit=1)]
        if page.jobs:
            yield f"show: {state}", lambda job=page.jobs[0].id: admin.show(job)
            yield f"why: {state}", lambda job=page.jobs[0].id: admin.explain(job)


def pages(stage: Stage) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield a request of each page of the dashboard, for which everything is read anew that an action would change."""
    kept = list[Shared]()

    class Kept(Shared):
        def __init__(self) -> None:
            super().__init__()
            kept.append(self)

    application.Shared = Kept  # type: ignore[misc]
    client = create_app(stage.dsn, access=everybody("benchmark")).test_client()

    def get(path: str) -> None:
        kept[0].invalidate()
        answer = client.get(path)
        if answer.status_code != HTTPStatus.OK:
            print(path, answer.status, answer.text[:500])

    for _ in range(2):  # compiles the templates, and has the doctor look
        get("/")
        time.sleep(1.0)
    for path in PAGES:
        yield f"page: {path}", partial(get, path)
    jobs = {}
    for state in ("available", "completed", "failed"):
        if found := Search(app.pool).page(parse(f"state:{state}"), limit=1).jobs:
            jobs[state] = found[0].id
            yield f"page: a job, {state}", partial(get, f"/jobs/{jobs[state]}")
    since, until = (datetime.now(UTC) - timedelta(hours=hours) for hours in (100, 20))
    yield (
        "page: /errors, 80 hours",
        partial(get, f"/errors?state=all&from={since:%Y-%m-%dT%H:%M}&to={until:%Y-%m-%dT%H:%M}"),
    )
    if {"failed", "completed"} <= jobs.keys():
        yield "page: two jobs", partial(get, f"/jobs/compare?a={jobs['failed']}&b={jobs['completed']}")


def sample(database: psycopg.Connection[tuple[object, ...]], lanes: list[tuple[str, int, int]]) -> None:
    """Sample the sizes as a node does, and undo it, so that the next one is not too early."""
    queues, priorities, watermarks = map(list, zip(*lanes, strict=True))
    with database.transaction(force_rollback=True):
        database.execute("DELETE FROM qworker.depth WHERE at > clock_timestamp() - interval '15 s'")
        Depths().sample(database, queues=queues, priorities=priorities, watermarks=watermarks)


if __name__ == "__main__":
    sys.exit(main())
