"""Measure every bar, and our drain beside those of the peers; see README.md."""

import argparse
import fnmatch
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from math import isnan, nan
from pathlib import Path
from typing import Any

from bars import Bar, Bars, drain, latency, their_latency
from contender import Contender
from contenders import contenders
from on_postgres import Clocked, pgqueuer
from stage import HERE, Stage, processors

#: Seconds that a peer may take to drain the smallest number of jobs, and half of those that it may take for any other.
SLOW = 20.0


def measure(bar: Bar, rounds: int) -> dict[str, Any]:
    """Take a bar's figures in turns; the one that begins changes."""
    first: list[float] = []
    second: list[float] = []
    stolen: list[float] = []
    for number in range(min(rounds, bar.rounds)):
        before = processors()
        steps = [(first, bar.a), (second, bar.b)]
        for found, figure in steps if number % 2 == 0 else reversed(steps):
            if figure is not None:
                found.append(figure())
        steal, total = (after - then for after, then in zip(processors(), before, strict=True))
        stolen.append(steal / total if total else nan)  # of twins the second has been measured with the first
        sides = f"{first[-1]:g}" + (f" : {second[-1]:g}" if second else "")
        print(f"  {bar.name}: {sides} ({share(stolen[-1])} stolen)", file=sys.stderr, flush=True)
    values = [a / b for a, b in zip(first, second, strict=True)] if second else first
    median = statistics.median(values)
    return {
        "bar": bar.name, "reach": bar.reach, "median": median, "low": min(values), "high": max(values),
        "rounds": len(values), "passed": bar.passed(median), "unit": bar.unit,
        "a": statistics.median(first), "b": statistics.median(second) if second else None,
        "stolen": statistics.median(stolen), "first": first, "second": second,
    }  # fmt: skip


def share(value: float) -> str:
    """Return a share as people read it."""
    return "" if isnan(value) else f"{value:.0%}"


def figure(value: float | None) -> str:
    """Return a number as people read it."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"  # noqa: PLR2004


def bars_table(rows: list[dict[str, Any]]) -> str:
    """Return the bars as Markdown."""
    lines = ["| what | reach | median (lowest to highest) | of | unit | stolen | |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        spread = f"{figure(row['median'])} ({figure(row['low'])} to {figure(row['high'])})"
        sides = figure(row["a"]) if row["b"] is None else f"{figure(row['a'])} : {figure(row['b'])}"
        verdict = "reached" if row["passed"] else "**not reached**"
        lines.append(
            f"| {row['bar']} | {row['reach']} | {spread} | {sides} | {row['unit']} | {share(row['stolen'])}"
            f" | {verdict}, n = {row['rounds']} |"
        )
    return "\n".join(lines)


def peers_table(rows: list[dict[str, Any]]) -> str:
    """Return the drains as Markdown, as docs/performance.md shows them: rows of one size beside those of the others."""
    sizes = sorted({row["jobs"] for row in rows})
    cells = {(row["name"], row["jobs"]): row for row in rows}
    heads = [f"drain of {size:,}, jobs/s (lowest to highest) | qworker / other" for size in sizes]
    heads += ["bulk enqueue, jobs/s", "idle latency p50 / p99, ms"]
    lines = [f"| | {' | '.join(heads)} |", "|" + "---|" * (1 + 2 * len(sizes) + 2)]
    for first in rows:
        if first["jobs"] != sizes[0]:
            continue
        line = [first["name"]]
        for size in sizes:
            row = cells.get((first["name"], size))
            line += [f"{spread(row)} | {row['ratio']:.1f}" if row else " | "]
        lag = first["latency"]
        line += [figure(first["fill"]), " / ".join(f"{1000 * value:.1f}" for value in lag) if lag else ""]
        lines.append(f"| {' | '.join(line)} |")
    return "\n".join(lines)


def spread(row: dict[str, Any]) -> str:
    """Return a rate with the lowest and highest."""
    return f"{figure(row['drain'])} ({figure(row['low'])} to {figure(row['high'])})"


class Comparison:
    """Our node and the peers on one stage, in turns."""

    def __init__(self, stage: Stage, others: list[Contender], rounds: int, processes: int) -> None:
        self.stage = stage
        self.others = others
        self.rounds = rounds
        self.processes = processes

    def rows(self, sizes: list[int]) -> list[dict[str, Any]]:
        """Drain each number of jobs; beyond the smallest with those peers only that are quick enough."""
        found = self.drains(min(sizes), self.others)
        lags = self.latencies()
        for row in found:
            row["latency"] = lags.get(row["name"])
        rates = {row["name"]: row["drain"] for row in found}
        for size in sorted(sizes)[1:]:
            found += self.drains(size, [peer for peer in self.others if size / rates[peer.name] < 2 * SLOW])
        return found

    def drains(self, jobs: int, others: list[Contender]) -> list[dict[str, Any]]:
        """Drain the same number of jobs with everybody, in turns."""
        rates: dict[str, list[float]] = {"qworker": []}
        fills: dict[str, list[float]] = {"qworker": []}
        for _ in range(self.rounds):
            start = time.monotonic()
            self.stage.clear()
            begun = time.monotonic()
            self.stage.fill(jobs)
            fills["qworker"].append(jobs / (time.monotonic() - begun))
            rates["qworker"].append(self.stage.work_off(jobs, self.processes))
            for peer in others:
                # Some take minutes for what others do in seconds: they are measured by a twentieth.
                known = rates.setdefault(peer.name, [])
                slow = others is self.others and (not known or statistics.median(known) < jobs / SLOW)
                count = max(1, jobs // 20) if slow else jobs
                rate = drain(peer, count, self.processes)
                if count < jobs <= rate * SLOW:
                    rate = drain(peer, jobs, self.processes)
                known.append(rate)
                fills.setdefault(peer.name, []).append(peer.enqueued / peer.filled)
            took = time.monotonic() - start
            print(f"  a round of {len(others) + 1} with {jobs:,} jobs: {took:.0f} s", file=sys.stderr, flush=True)
        rows = []
        for name, found in rates.items():
            ratios = [ours / theirs for ours, theirs in zip(rates["qworker"], found, strict=True)]
            rows.append({
                "name": name, "jobs": jobs, "drain": statistics.median(found), "low": min(found), "high": max(found),
                "ratio": statistics.median(ratios), "fill": statistics.median(fills[name]), "latency": None,
            })  # fmt: skip
        return sorted(rows, key=lambda row: -row["drain"])

    def latencies(self) -> dict[str, tuple[float, float]]:
        """Return p50 and p99 of the seconds from enqueue to the handler's start on idle workers, medians of the rounds.

        300 jobs, 20 ms apart; those peers only whose handler notes it.
        """
        clocked = [peer for peer in self.others if isinstance(peer, Clocked) and peer.clocked]
        found: dict[str, list[tuple[float, float]]] = {}
        for _ in range(self.rounds):
            found.setdefault("qworker", []).append(latency(self.stage))
            for peer in clocked:
                found.setdefault(peer.name, []).append(their_latency(peer))
        return {name: (statistics.median(p50), statistics.median(p99))
                for name, pairs in found.items() for p50, p99 in [zip(*pairs, strict=True)]}  # fmt: skip


def compare(stage: Stage, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the rows of the table of the peers."""
    with (
        tempfile.TemporaryDirectory() as folder,
        contenders(stage.dsn, options.peers, Path(folder), options.peer) as others,
    ):
        return Comparison(stage, others, options.rounds, options.processes).rows(options.jobs)


def main() -> None:
    """Be the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", required=True, metavar="PYTHON", help="the Python that has requirements.txt")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--only", default="*", metavar="PATTERN", help="the bars whose names match, as in a shell")
    parser.add_argument(
        "--jobs", type=int, nargs="+", default=[20_000, 200_000], metavar="N",
        help="for the table of the peers: everybody drains the smallest number, and the others only those peers that"
        f" can do so within {2 * SLOW:g} s; 0: no such table (default: 20000 200000)",
    )  # fmt: skip
    parser.add_argument(
        "--peer", default="*", metavar="PATTERN",
        help="the peers whose names match, as in a shell; graphile-worker needs npm, which installs it for the run"
        " (apt-get install npm), with the settings of its own performance test",
    )  # fmt: skip
    parser.add_argument("--processes", type=int, default=2, help="for the table of the peers")
    parser.add_argument("--json", type=Path, default=HERE / "results.json")
    parser.add_argument("--plot", type=Path, default=HERE / "results.svg")
    options = parser.parse_args()
    with Stage() as stage:
        default, best = pgqueuer(stage.dsn, options.peers)
        known = Bars(stage, default, best).all()
        wanted = [bar for bar in known if fnmatch.fnmatch(bar.name, options.only)]
        results = {
            "version": subprocess.check_output(["git", "describe", "--always", "--dirty"], cwd=HERE, text=True).strip(),
            "postgresql": stage.value("SHOW server_version"),
            "python": platform.python_version(),
            "cores": len(os.sched_getaffinity(0)),
            "peers": compare(stage, options) if all(options.jobs) else [],
            "bars": [],
        }
        if wanted:
            default.install()
        for bar in (None, *wanted):
            if bar is not None:
                results["bars"].append(measure(bar, options.rounds))
            options.json.write_text(json.dumps(results, indent=1) + "\n")  # what a run of hours has is not lost
    if results["peers"]:
        print(peers_table(results["peers"]) + "\n")
    if wanted:
        print(bars_table(results["bars"]))
    if results["peers"]:
        subprocess.run([options.peers, HERE / "plot.py", options.json, options.plot], check=True)


if __name__ == "__main__":
    main()
