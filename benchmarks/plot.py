"""Draw the drains of a results file: `plot.py RESULTS.json PLOT.svg`, run by the Python of the peers."""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt


def main(results: str, plot: str) -> None:
    """Draw one bar for each row of the smallest number of jobs, the fastest on top."""
    rows = json.loads(Path(results).read_text())["peers"]
    rows = [row for row in rows if row["jobs"] == rows[0]["jobs"]][::-1]
    figure, axes = plt.subplots(figsize=(8, 0.4 * len(rows) + 1))
    colours = ["#2f6f4f" if row["name"] == "qworker" else "#b8b8b8" for row in rows]
    bars = axes.barh([row["name"] for row in rows], [row["drain"] for row in rows], color=colours)
    axes.bar_label(bars, [f"{row['drain']:,.0f}" for row in rows], padding=4)
    axes.set_xlabel("no-op jobs per second, 2 worker processes, 2 cores shared with the database")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.15)
    figure.savefig(plot, bbox_inches="tight")


if __name__ == "__main__":
    main(*sys.argv[1:])
