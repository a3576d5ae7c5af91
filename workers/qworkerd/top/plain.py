"""Frames for pipes: one as plain text of 80 columns, or as a JSON object."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from qworkerd.top.cells import harmless
from qworkerd.top.overview import Line, lines, table
from qworkerd.top.reading import Frame, view_of

#: Width of a frame (columns), and maximum number of rows of a table.
WIDTH, MAX_ROWS = 80, 50


def text(frame: Frame, title: str) -> str:
    """Return a frame as lines of plain text."""
    at = f"{frame.snapshot.at.astimezone():%Y-%m-%d %H:%M:%S%z}"
    found: list[Line] = [[(f"{harmless(title)}  {at}", "")], []]
    view = view_of(frame.query)
    if view is None:
        found += lines(frame, WIDTH)
    else:
        rows = ordered(view.columns, frame.rows, view.sort)
        found += table(view, rows[:MAX_ROWS], frame.snapshot.at, WIDTH)
        if len(rows) > MAX_ROWS:
            found.append([(f"and {len(rows) - MAX_ROWS:,} more", "")])
    if frame.note:
        found += [[], [(frame.note, "")]]
    return "\n".join("".join(part for part, _ in line).rstrip() for line in found)


def ordered(columns: Sequence[Any], rows: Sequence[Any], sort: int | None, *, reverse: bool = False) -> list[Any]:
    """Return the rows sorted by a column, or as they were read."""
    column = None if sort is None else columns[sort]
    if column is None or column.key is None:
        return list(reversed(rows)) if reverse else list(rows)
    return sorted(rows, key=column.key, reverse=column.descending != reverse)


def record(frame: Frame) -> dict[str, Any]:
    """Return a frame as a JSON object; durations are in seconds."""
    snapshot = frame.snapshot
    return {
        "at": snapshot.at, "tab": frame.query.tab.value, "rate": snapshot.rate, "last_hour": snapshot.counts.as_dict(),
        "workers": {"busy": snapshot.busy, "total": snapshot.worker_count},
        "queues": [
            {name: getattr(queue, name) for name in queue.__slots__ if name != "counts"}
            | {"drain_seconds": queue.drain_seconds, "last_hour": queue.counts.as_dict()}
            for queue in snapshot.queues
        ],
        "nodes": [
            {"id": node.id, "name": node.name, "alive": node.alive, "heartbeat_age": node.heartbeat_age,
             "version": node.version, "queues": node.queues, "paused": node.paused,
             "workers": [asdict(worker) for worker in node.workers]}
            for node in snapshot.nodes
        ],
        **_rows(frame),
    }  # fmt: skip


def _rows(frame: Frame) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if frame.diagnosis is not None:
        found["findings"] = [
            {"check": one.check, "about": one.about, "severity": one.severity.value, "summary": one.summary}
            for one in frame.diagnosis.findings
        ]
    if frame.groups:
        found["errors"] = [_fields(group) for group in frame.groups]
    view = view_of(frame.query)
    if view is not None and view.name in ("running", "failed", "groups", "schedules"):
        found[view.name] = [_fields(row) for row in frame.rows]
    return found


def _fields(value: Any) -> Any:
    """Return the public fields of a dataclass, also of those inside it."""
    if not hasattr(value, "__dataclass_fields__"):
        return value
    return {name: _fields(getattr(value, name)) for name in value.__dataclass_fields__ if not name.startswith("_")}
