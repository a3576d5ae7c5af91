"""Pictures of `qworker top` with data that does not change: `python -m tests.qworkerd.top_pictures` writes docs/top."""

import asyncio
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from qworker.counts import Counts, Durations
from qworker.depth import QueueDepth
from qworker.error_groups import ErrorGroup, GroupState
from qworker.findings import Finding, Severity
from qworker.job import Job, JobState
from qworker.queues import QueuePause
from qworker.snapshot import QueueActivity, RunningJob, Snapshot
from qworker.statistics import Point
from qworker.status import NodeStatus, Pause
from qworker.timetable import ScheduleEntry
from qworkerd.top.actions import Actions
from qworkerd.top.app import TopApp
from qworkerd.top.reading import Diagnosis, Frame, Query, Reader, Tab

FOLDER = Path(__file__).parents[2] / "docs" / "top"
NOW = datetime(2026, 1, 31, 9, 41, 7, tzinfo=UTC)
_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
_IDS = re.compile(r"terminal-\d+-")


@dataclass(frozen=True)
class Picture:
    """What is pressed after the start, and what then stands on the screen."""

    name: str
    tab: Tab
    size: tuple[int, int] = (100, 28)
    theme: str = "textual-dark"
    keys: tuple[str, ...] = ()
    data: Callable[[Query], Frame] | None = None


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def spread(median: int, count: int) -> Durations:
    """Return durations around a bucket."""
    parts = {median - 8: 2, median - 4: 10, median: 70, median + 4: 14, median + 10: 3, median + 16: 1}
    return Durations(
        {bucket: max(1, share * count // 100) for bucket, share in parts.items()} if count else {}, count * 0.04
    )


def queue(name: str, available: int = 0, running: int = 0, failed: int = 0, **values: Any) -> QueueActivity:
    done = values.pop("done", 0)
    known: dict[str, Any] = {
        "due": 0, "scheduled": 0, "oldest_seconds": None, "exact": True, "nodes": ("web1:411",),
        "workers": 16, "paused": None,
        "counts": Counts(succeeded=done, failed=failed, run=spread(30, done), wait=spread(34, done)),
    }  # fmt: skip
    return QueueActivity(name=name, available=available, running=running, failed=failed, **known | values)


QUEUES = (
    queue("critical", 3, 2, done=48_211, oldest_seconds=0.12),
    queue("default", 1_204, 9, 17, done=301_554, oldest_seconds=3.4, scheduled=212),
    queue("imports", 1_204_318, 0, 2, oldest_seconds=4_210.0, exact=False,
          paused=QueuePause(ago(4000), "alice@ops1", "warehouse is down", "imports")),
    queue("mail", 88, 3, 4, done=92_004, oldest_seconds=11.0, scheduled=40),
    queue("media.thumbnails.of-a-name-that-does-not-end-where-one-would-like-it-to", 40, done=7, workers=0, nodes=(),
          oldest_seconds=122.0),
    queue("reports", 0, 1, done=310),
)  # fmt: skip


def report(number: int, each: int) -> dict[str, Any]:
    """Return what a node reports of a job; those of the first workers have run for longest."""
    ran = 547.0 / (each + 1) ** 2
    return {"job": number, "task": "shop.mail.send", "ran": ran, "left": 600.0 - ran}


def node(number: int, *, busy: int, age: float = 0.4, **state: Any) -> NodeStatus:
    workers = [
        {"worker": each, "pid": 5_000 + 100 * number + each, "phase": "running" if each < busy else "idle",
         "jobs_done": 48_000 + 311 * each, "rss_mib": 84.0 + each,
         **(report(771_000 + 10 * number + each, each) if each < busy else {})}
        for each in range(8)
    ]  # fmt: skip
    return NodeStatus(
        id=number, name=f"web{number}:4{number}1", version="0.1.0", queues=("critical", "default", "mail", "reports"),
        worker_count=8, idle=False, started_at=ago(190_000 * number), heartbeat_at=ago(age), heartbeat_age=age,
        lease_seconds=30.0, state={"workers": workers, **state},
    )  # fmt: skip


NODES = (
    node(1, busy=8),
    replace(
        node(2, busy=7, last_death={"worker": 3, "pid": 5203, "cause": "oom", "count": 2, "ago": 340.0}),
        paused=Pause(ago(600), "alice@ops1", "new kernel"),
    ),
    node(3, busy=0, age=41.0),
)  # fmt: skip


def job(number: int, task: str, name: str = "default", **values: Any) -> Job:
    known: dict[str, Any] = {
        "state": JobState.RUNNING, "priority": 5, "args": {"order": number}, "attempt": 1, "enqueued_at": ago(60),
        "claimed_at": ago(9),
    }  # fmt: skip
    return Job(id=number, task=task, queue=name, **known | values)


RUNNING = [
    RunningJob(job(771_011, "shop.reports.monthly", "reports", claimed_at=ago(341), attempt=2,
                   progress={"fraction": 0.62, "text": "page 31 of 50"}), NODES[0], NODES[0].workers[1]),
    RunningJob(job(771_013, "shop.imports.catalogue", cancel_requested_at=ago(1)), NODES[0], NODES[0].workers[3]),
    RunningJob(job(771_014, "shop.mail.send", "mail"), NODES[0], NODES[0].workers[4]),
    RunningJob(job(771_022, "shop.orders.charge", "critical"), NODES[1], NODES[1].workers[2]),
]  # fmt: skip


def group(number: int, task: str, type_: str, message: str, count: int, seconds: float, **values: Any) -> ErrorGroup:
    known: dict[str, Any] = {
        "state": GroupState.OPEN, "frame": f"{task.rpartition('.')[0]}:run", "first_release": None,
        "last_release": None,
        "queues": ("default",), "first_job": 1, "samples": (number,), "changed_at": None, "changed_by": None,
        "reopened_at": None, "reopened_release": None,
        "recent": tuple((each * number * 7) % 11 if each > 12 else 0 for each in range(24)),
    }  # fmt: skip
    return ErrorGroup(
        fingerprint=f"{number:016x}", task=task, type=type_, message=message, count=count, first_seen=ago(80_000),
        last_seen=ago(seconds), **known | values,
    )  # fmt: skip


GROUPS = (
    group(1, "shop.mail.send", "ConnectionRefusedError", "mx<n>.example.org:25 refused the connection", 1_204, 3),
    group(2, "shop.orders.charge", "CardDeclined", "card of customer <n> was declined", 17, 41),
    group(3, "shop.media.thumbnail", "WorkerDied", "oom", 2, 340),
    group(4, "shop.imports.catalogue", "KeyError", "<s>", 3, 7_000, state=GroupState.RESOLVED),
    group(5, "[red]boo[/red]", "\x1b[2JTerminalError", "漢字 \u202e\nand a second line", 1, 9_000),
)

FAILED = [
    job(770_000 - each, "shop.mail.send", "mail", state=JobState.FAILED, attempt=5, finished_at=ago(40 * each + 3),
        errors=({"type": "ConnectionRefusedError", "message": f"mx{each % 3}.example.org:25 refused the connection"},))
    for each in range(40)
]  # fmt: skip

FINDINGS = (
    Finding(
        "unserved-queue",
        "media",
        Severity.STOPS,
        "queue 'media' holds 40 available jobs, and no node serves it",
    ),
    Finding("old-snapshot", "4711", Severity.WARNING, "session 4711 of role 'report' has held a snapshot for 2h10m"),
    Finding("unused-index", "job_extra", Severity.HINT, "index job_extra was never used"),
)

SCHEDULES = [
    ScheduleEntry("shop.reports.daily", "shop.reports.daily", "0 9 * * mon-fri", "Europe/Berlin", ago(100_000),
                  ago(-80_000), ("web1:411",), None, ""),
    ScheduleEntry("shop.sweep", "shop.sweep", "*/5 * * * *", "UTC", ago(67), ago(-233), ("web1:411", "web2:421"),
                  None, ""),
    ScheduleEntry("shop.invoices", "shop.invoices", "0 0 1 * *", "UTC", ago(2_700_000), None, (), None,
                  "no live node declares it: it does not tick"),
]  # fmt: skip


def full(query: Query) -> Frame:
    """Return the frame of a busy cluster."""
    snapshot = Snapshot(
        NOW, QUEUES, NODES, 124.6,
        Counts(succeeded=442_086, failed=23, retried=1_310, oom=2, run=spread(30, 442_086), wait=spread(34, 442_086)),
    )  # fmt: skip
    chart = [
        Point(
            ago(7 + 60 * each),
            Counts(succeeded=6_000 + 900 * ((each * 13) % 9), retried=(each * 7) % 5 if each < 25 else 0),
        )
        for each in range(60)
    ]
    chart = [Point(point.at.replace(second=0), point.counts) for point in chart]
    depths = [
        QueueDepth(
            "",
            ago(60 * each).replace(second=0),
            1_205_000 - 18_000 * each if each < 50 else 900,
            0,
            0,
            0,
            0,
            0.0,
            False,
        )
        for each in range(60)
    ]
    rows: dict[Tab, Any] = {
        Tab.QUEUES: QUEUES, Tab.RUNNING: RUNNING, Tab.FAILURES: FAILED if query.jobs else GROUPS, Tab.NODES: NODES,
        Tab.SCHEDULES: SCHEDULES, Tab.DOCTOR: FINDINGS,
    }  # fmt: skip
    return Frame(query, snapshot, rows.get(query.tab, ()), chart, depths, GROUPS, Diagnosis(FINDINGS))


def nothing(query: Query) -> Frame:
    """Return the frame of an empty database."""
    return Frame(query, Snapshot(NOW, (), (), None, Counts()), diagnosis=Diagnosis(()))


class FixedReader:
    """Reads what never changes."""

    admin = None

    def __init__(self, data: Callable[[Query], Frame]) -> None:
        self.read = data

    def close(self) -> None: ...


class NoActions:
    """Takes none."""

    def close(self) -> None: ...


PICTURES = [
    *(Picture(tab.value, tab) for tab in Tab),
    Picture("overview-light", Tab.OVERVIEW, theme="textual-light"),
    Picture("failed-jobs-light", Tab.FAILURES, (80, 24), "textual-light", ("f", "j", "x", "x")),
    Picture("queues-small", Tab.QUEUES, (40, 10)),
    Picture("queues-large", Tab.QUEUES, (160, 20)),
    Picture("empty", Tab.OVERVIEW, (80, 20), data=nothing),
    Picture("help", Tab.QUEUES, (100, 34), keys=("question_mark",)),
    Picture("filter", Tab.FAILURES, (80, 20), keys=("slash", *"queu", "colon", *"mail", "enter")),
]
#: Those of the documentation.
SHOWN = ("overview", "running", "failures")


def draw(picture: Picture) -> tuple[str, str]:
    """Return the text and the SVG of a screen."""

    async def run() -> tuple[str, str]:
        reader = FixedReader(picture.data or full)
        app = TopApp(cast(Reader, reader), cast(Actions, NoActions()), "shop@db1.example.org", tab=picture.tab)
        async with app.run_test(size=picture.size) as pilot:
            app.theme = picture.theme
            deadline = time.monotonic() + 20
            while app.frame is None or app.frame.query.tab is not picture.tab:
                assert time.monotonic() < deadline
                await pilot.pause(0.02)
            for key in picture.keys:
                frame = app.frame
                await pilot.press(key)
                if key == "f":
                    while app.frame is frame:
                        await pilot.pause(0.02)
            await pilot.pause(0.1)
            await pilot.wait_for_animation()
            lines = [strip.text.rstrip() for strip in app.screen._compositor.render_strips()]
            return "\n".join(lines) + "\n", app.export_screenshot(title="qworker top")

    text, svg = asyncio.run(run())
    svg = _IDS.sub("top-", _FONTS.sub("", svg)).replace("Fira Code", "ui-monospace, Menlo, Consolas")
    return text, re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE).strip() + "\n"


def utc() -> None:
    os.environ["TZ"] = "UTC"
    time.tzset()


def main() -> None:
    utc()
    FOLDER.mkdir(exist_ok=True)
    golden = Path(__file__).parent / "top_screens"
    golden.mkdir(exist_ok=True)
    for picture in PICTURES:
        text, svg = draw(picture)
        (golden / f"{picture.name}.txt").write_text(text)
        if picture.name in SHOWN:
            (FOLDER / f"{picture.name}.svg").write_text(svg)
        if folder := os.environ.get("PICTURES"):
            (Path(folder) / f"{picture.name}.svg").write_text(svg)


if __name__ == "__main__":
    main()
