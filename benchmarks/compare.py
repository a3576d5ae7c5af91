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

from bars import Bar, Bars, drain
from contenders import contenders
from on_postgres import pgqueuer
from stage import HERE, Stage, processors

#: Seconds that a peer may take to drain the full number of jobs.
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
    """Return the drains as Markdown."""
    lines = ["| | drain, jobs/s (lowest to highest) | ours / theirs | bulk enqueue, jobs/s |", "|---|---|---|---|"]
    lines += [
        f"| {row['name']} | {figure(row['drain'])} ({figure(row['low'])} to {figure(row['high'])})"
        f" | {row['ratio']:.1f} | {figure(row['fill'])} |"
        for row in rows
    ]
    return "\n".join(lines)


def peers(stage: Stage, python: str, jobs: int, rounds: int, processes: int) -> list[dict[str, Any]]:
    """Drain the same number of jobs with everybody, in turns."""
    with tempfile.TemporaryDirectory() as folder, contenders(stage.dsn, python, Path(folder)) as others:
        rates: dict[str, list[float]] = {"qworker": []}
        fills: dict[str, list[float]] = {"qworker": []}
        for _ in range(rounds):
            start = time.monotonic()
            stage.clear()
            begun = time.monotonic()
            stage.fill(jobs)
            fills["qworker"].append(jobs / (time.monotonic() - begun))
            rates["qworker"].append(stage.work_off(jobs, processes))
            for peer in others:
                # Some take minutes for what others do in seconds: they are measured by a twentieth.
                known = rates.setdefault(peer.name, [])
                count = jobs // 20 if not known or statistics.median(known) < jobs / SLOW else jobs
                rate = drain(peer, count, processes)
                if count < jobs <= rate * SLOW:
                    rate = drain(peer, jobs, processes)
                known.append(rate)
                fills.setdefault(peer.name, []).append(peer.enqueued / peer.filled)
            print(f"  a round of {len(others) + 1}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    rows = []
    for name, found in rates.items():
        ratios = [ours / theirs for ours, theirs in zip(rates["qworker"], found, strict=True)]
        rows.append({
            "name": name, "drain": statistics.median(found), "low": min(found), "high": max(found),
            "ratio": statistics.median(ratios), "fill": statistics.median(fills[name]),
        })  # fmt: skip
    return sorted(rows, key=lambda row: -row["drain"])


def main() -> None:
    """Be the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", required=True, metavar="PYTHON", help="the Python that has requirements.txt")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--only", default="*", metavar="PATTERN", help="the bars whose names match, as in a shell")
    parser.add_argument("--jobs", type=int, default=20_000, help="for the table of the peers; 0: no such table")
    parser.add_argument("--processes", type=int, default=2, help="for the table of the peers")
    parser.add_argument("--json", type=Path, default=HERE / "results.json")
    parser.add_argument("--plot", type=Path, default=HERE / "results.svg")
    options = parser.parse_args()
    with Stage() as stage:
        default, best = pgqueuer(stage.dsn, options.peers)
        default.install()
        known = Bars(stage, default, best).all()
        wanted = [bar for bar in known if fnmatch.fnmatch(bar.name, options.only)]
        results = {
            "version": subprocess.check_output(["git", "describe", "--always", "--dirty"], cwd=HERE, text=True).strip(),
            "postgresql": stage.value("SHOW server_version"),
            "python": platform.python_version(),
            "cores": len(os.sched_getaffinity(0)),
            "peers": peers(stage, options.peers, options.jobs, options.rounds, options.processes)
            if options.jobs
            else [],
            "bars": [],
        }
        for bar in (None, *wanted):
            if bar is not None:
                results["bars"].append(measure(bar, options.rounds))
            options.json.write_text(json.dumps(results, indent=1) + "\n")  # what a run of hours has is not lost
    if results["peers"]:
        print(peers_table(results["peers"]) + "\n")
    print(bars_table(results["bars"]))
    if results["peers"]:
        subprocess.run([options.peers, HERE / "plot.py", options.json, options.plot], check=True)


if __name__ == "__main__":
    main()
