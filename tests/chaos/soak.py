"""The long run: mixed load and faults for half an hour, and whether anything grows that the load does not explain.

    python -m tests.chaos.soak --minutes 30 --seed 7 --json soak.json

A third node that no fault strikes by itself is watched from outside, for its processes live as long as the run. Figures
are medians of a fifth of the run: the second one, when all is warm, against the last.
"""

import argparse
import json
import os
import random
import secrets
import signal
import statistics
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg

from qworkerd.embedded import EmbeddedPostgres
from tests import leftovers
from tests.chaos.effects import check, settle
from tests.chaos.faults import FAULTS
from tests.chaos.field import ENVIRONMENT, OPTIONS, pitch
from tests.chaos.producers import Producers
from tests.chaos.storm import Storm
from tests.conftest import FOREIGN
from tests.lifecycle.application import noop
from tests.lifecycle.node import Node

#: Jobs of the steady load, which come so many at once, so often (seconds).
BULK, PAUSE = 100, 0.25
#: Between two faults, on average; between two samples (seconds).
FAULT, SAMPLE = 15.0, 5.0

#: A failed job is kept among hundreds that are gone, and a page of the primary key with it (bytes).
PAGE = 8192

#: Connections, and what the database takes for each kind of thing (bytes). History may grow: by so much a job.
DATABASE = """
SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')::float8 AS connections,
       pg_table_size('qworker.job')::float8 AS job_table,
       pg_indexes_size('qworker.job')::float8 AS job_indexes,
       (SELECT count(*) FROM qworker.job WHERE state = 'failed')::float8 AS failed,
       (SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
         WHERE n.nspname = 'qworker' AND c.relkind = 'r' AND c.relname <> 'job'
           AND c.relname NOT LIKE 'job_history%' AND c.relname NOT LIKE 'job_log%'
       )::float8 AS other_tables,
       (SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits
         WHERE inhparent = 'qworker.job_history'::regclass)::float8 AS history,
       (SELECT count(*) FROM qworker.job_history)::float8 AS ended
"""


@dataclass(frozen=True)
class Limit:
    """How much a figure may grow from the second fifth of the run to the last."""

    name: str
    unit: str
    factor: float
    #: What does not count as growth, in the same unit.
    slack: float


LIMITS = [
    *(Limit(f"memory of a {role}", "MiB", 1.05, 0.5) for role in ("supervisor", "scheduler", "worker")),
    *(Limit(f"descriptors of a {role}", "", 1.0, 0.5) for role in ("supervisor", "scheduler", "worker")),
    Limit("connections", "", 1.0, 3.0),
    Limit("job: table", "MiB", 1.5, 2.0),
    Limit("job: indexes beyond failed jobs", "MiB", 1.5, 2.0),
    Limit("other tables", "MiB", 1.1, 0.3),
    Limit("history, a job that has ended", "bytes", 1.05, 0.0),
]


@dataclass(frozen=True)
class Finding:
    """A figure early and late in the run."""

    name: str
    unit: str
    early: float
    late: float
    allowed: float

    @property
    def passed(self) -> bool:
        """Whether it has not grown."""
        return self.late <= self.allowed


def look(database: psycopg.Connection[tuple[float, ...]], node: Node) -> dict[str, float]:
    """Return all figures as they are now."""
    figures: dict[str, float] = {}
    for role in ("supervisor", "scheduler", "worker"):
        pids = [node.pid] if role == "supervisor" else node.children(role)
        figures[f"memory of a {role}"] = max(map(private, pids)) / 2**20
        figures[f"descriptors of a {role}"] = max(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)  # noqa: PTH208
    ((connections, table, indexes, failed, others, history, ended),) = database.execute(DATABASE)
    return figures | {
        "connections": connections,
        "job: table": table / 2**20,
        "job: indexes": indexes / 2**20,
        "job: indexes beyond failed jobs": (indexes - PAGE * failed) / 2**20,
        "failed jobs": failed,
        "other tables": others / 2**20,
        "history, a job that has ended": history / max(ended, 1),
        "ended": ended,
    }


def private(pid: int) -> int:
    """Return the bytes that a process shares with nobody."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_"))


def judge(samples: list[dict[str, float]]) -> Iterator[Finding]:
    """Compare the second fifth of the samples with the last."""
    fifth = len(samples) // 5
    for limit in LIMITS:
        early, late = (
            statistics.median(sample[limit.name] for sample in part)
            for part in (samples[fifth : 2 * fifth], samples[-fifth:])
        )
        yield Finding(limit.name, limit.unit, early, late, early * limit.factor + limit.slack)


def table(findings: Iterable[Finding]) -> str:
    """Return the findings as Markdown."""
    lines = ["| | early | late | at most | |", "|---|---|---|---|---|"]
    for one in findings:
        verdict = "" if one.passed else "**grows**"
        lines.append(f"| {one.name} | {one.early:.1f} | {one.late:.1f} | {one.allowed:.1f} {one.unit} | {verdict} |")
    return "\n".join(lines)


@contextmanager
def beside(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Do something in a thread until the block is left; raise what it has met."""
    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work, over)
        try:
            yield
        finally:
            over.set()
        done.result()


def main() -> int:
    """Be the command; return 1 if something grows, raise AssertionError if something was lost or doubled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="1 at least")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--json", type=Path, help="where to write all samples")
    options = parser.parse_args()
    if options.minutes < 1:
        parser.error(f"--minutes {options.minutes:g}: nothing can be said of less than a minute")
    chance = random.Random(options.seed)
    samples: list[dict[str, float]] = []
    began = monotonic()
    # A clock that jumps puts jobs off by hours, and they pile up: `make chaos` has it.
    faults = [fault for fault in FAULTS if fault.kind != "clock"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for name in [name for name in os.environ if name.startswith(FOREIGN) and name != "QWORKER_PG_BINDIR"]:
        del os.environ[name]
    mark = os.environ[leftovers.MARK] = secrets.token_hex(8)
    EmbeddedPostgres.inherited |= {leftovers.MARK}
    with (
        leftovers.watched(mark),
        tempfile.TemporaryDirectory(prefix="qworker-soak-") as folder,
        pitch(Path(folder), chance) as field,
    ):
        node = field.cluster.start(*OPTIONS, **ENVIRONMENT).await_ready()
        storm, dsn = Storm(field, faults, every=FAULT), field.cluster.database.dsn

        def load(over: threading.Event) -> None:
            while not over.wait(PAUSE):
                with suppress(psycopg.Error), psycopg.connect(dsn, connect_timeout=3) as conn:
                    noop.using(conn).enqueue_many([()] * BULK)

        def watch(over: threading.Event) -> None:
            while not over.wait(SAMPLE):
                # A server that is away, and processes that are being replaced, are looked at the next time.
                with suppress(psycopg.Error, OSError, ValueError), psycopg.connect(dsn, connect_timeout=3) as conn:
                    samples.append({"at": monotonic() - began, **look(conn, node)})
                    progress = f"{samples[-1]['at'] / 60:5.1f} of {options.minutes:g} min"
                    say(f"\r{progress}, {samples[-1]['ended']:,.0f} jobs have ended", end="", file=sys.stderr)

        with Producers(dsn, chance), beside(load), beside(watch):
            storm.rage(options.minutes * 60)
        field.cluster.hang_up()
        settle(field.cluster, 120.0)
        check(field.cluster)
        findings = list(judge(samples))
        if options.json:
            facts = {"seed": options.seed, "minutes": options.minutes, "storm": storm.record, "samples": samples}
            options.json.write_text(json.dumps(facts | {"findings": list(map(asdict, findings))}, indent=1) + "\n")
        ended = f"{samples[-1]['ended']:,.0f} jobs, {len(storm.record)} faults"
        say(f"\n{options.minutes:g} minutes, seed {options.seed}: {ended}\n\n{table(findings)}")
    return 0 if all(one.passed for one in findings) else 1


def say(text: str, **options: Any) -> None:
    """Write to where people look, at once."""
    print(text, flush=True, **options)  # noqa: T201 - it is a program


if __name__ == "__main__":
    sys.exit(main())
