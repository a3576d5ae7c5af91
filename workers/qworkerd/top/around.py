"""The texts of the lines around a tab."""

from collections.abc import Mapping

from qworkerd.top.actions import Outcome
from qworkerd.top.cells import harmless, rate, short
from qworkerd.top.overview import Line
from qworkerd.top.reading import Frame, Tab

#: The keys of each tab, and those of all tabs with a table.
KEYS = {
    Tab.OVERVIEW: "1-7 tabs",
    Tab.QUEUES: "p pause  Enter details",
    Tab.RUNNING: "C cancel  S stack  Enter details",
    Tab.FAILURES: "R retry  D discard  f jobs/groups",
    Tab.NODES: "p pause  Enter workers",
    Tab.SCHEDULES: "p pause  Enter details",
    Tab.DOCTOR: "Enter remedy",
}
COMMON = "/ filter  x select  s sort"


def title(where: str, frame: Frame | None, *, frozen: bool) -> tuple[Line, Line]:
    """Return the first line: the database at the left, the state of the cluster at the right."""
    left: Line = [(" qworker top ", "title"), (f" {harmless(where)}", "dim")]
    if frame is None:
        return left, []
    snapshot = frame.snapshot
    right: Line = [
        (f"{snapshot.busy}/{snapshot.worker_count}", "plain"), (" busy  ", "dim"), (rate(snapshot.rate), "plain"),
        (f"  {snapshot.at.astimezone():%H:%M:%S} ", "dim"),
    ]  # fmt: skip
    return left, [("refresh stopped  ", "warning"), *right] if frozen else right


def badges(frame: Frame | None) -> Mapping[Tab, str]:
    """Return the numbers behind the names of tabs: of what needs attention."""
    if frame is None:
        return {}
    snapshot = frame.snapshot
    found = {
        Tab.FAILURES: sum(queue.failed for queue in snapshot.queues),
        Tab.NODES: len(snapshot.nodes) - len(snapshot.live),
        Tab.DOCTOR: len(frame.diagnosis.findings) if frame.diagnosis else 0,
    }
    return {tab: short(count) for tab, count in found.items() if count}


def keys(tab: Tab) -> tuple[Line, Line]:
    """Return the last line."""
    common = "" if tab is Tab.OVERVIEW else f"  {COMMON}"
    return [(f" {KEYS[tab]}{common}", "key")], [("? help  q end ", "key")]


def status(outcome: Outcome | None, text: str, note: str) -> Line:
    """Return the line above the keys: what the last action has done, or the filter and what is missing."""
    if outcome is not None:
        return [(f" {outcome.message}", "good" if outcome.ok else "bad")]
    line: Line = [(" filter ", "dim"), (f"{harmless(text)}  ", "key")] if text else [(" ", "dim")]
    return [*line, (note, "warning")] if note else line


def position(cursor: int, rows: int, selected: int) -> Line:
    """Return where the cursor is, and how many rows are selected."""
    chosen = f"{selected:,} selected  " if selected else ""
    return [(f"{chosen}{min(cursor + 1, rows):,} of {rows:,} ", "dim")]
