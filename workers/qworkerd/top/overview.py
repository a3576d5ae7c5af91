"""The overview: the state of the cluster on one page, as lines of styled text."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from qworker.counts import Counts, Durations
from qworker.findings import Severity
from qworker.snapshot import QueueActivity
from qworkerd.log.width import width
from qworkerd.top.cells import ago, bars, duration, fit, harmless, number, rate, short
from qworkerd.top.columns import BAD, DIM, GAP, GOOD, PLAIN, WARNING, natural_widths, widths
from qworkerd.top.reading import Frame
from qworkerd.top.view import View
from qworkerd.top.views import QUEUES

#: A part of a line and the name of its style.
Part = tuple[str, str]
Line = list[Part]

#: The style of titles.
TITLE = "title"
#: Minutes of the charts, and the width of their labels.
MINUTES, LABEL = 60, 10
#: Lines above the queues, with the head of their table, and the one that counts the rest.
ABOVE = 12
#: Maximum numbers of queues, groups of errors and findings.
MAX_QUEUES, MAX_ERRORS, MAX_FINDINGS = 8, 5, 4


def lines(frame: Frame, room: int, height: int | None = None) -> list[Line]:
    """Return the lines of the overview, none of them wider than `room`; the number of queues depends on the height."""
    findings, errors = list(_findings(frame, room)), list(_errors(frame, room))
    queues = MAX_QUEUES if height is None else max(3, height - ABOVE - len(findings) - len(errors))
    found = [
        *_facts(frame),
        [],
        *_charts(frame, room),
        *findings,
        [],
        *table(QUEUES, _busiest(frame.snapshot.queues, queues), frame.snapshot.at, room),
    ]
    hidden = len(frame.snapshot.queues) - queues
    if hidden > 0:
        found.append([(f"and {hidden:,} more queues", DIM)])
    return [cut(line, room) for line in [*found, *errors]]


def _facts(frame: Frame) -> Iterable[Line]:
    snapshot, counts = frame.snapshot, frame.counts
    queues, exact = snapshot.queues, all(queue.exact for queue in snapshot.queues)
    available, failed = sum(q.available for q in queues), sum(q.failed for q in queues)
    oldest = max((q.oldest_seconds for q in queues if q.oldest_seconds is not None), default=None)
    yield [
        *_label("Jobs"), *_fact(number(available, exact=exact), "available"),
        *_fact(number(sum(q.running for q in queues), exact=exact), "running"),
        *_fact(number(sum(q.scheduled for q in queues), exact=exact), "scheduled"),
        *_fact(number(failed, exact=exact), "failed", BAD if failed else PLAIN),
    ]  # fmt: skip
    nodes = len(snapshot.live)
    paused = sum(queue.paused is not None for queue in queues)
    yield [
        *_label("Workers"), *_fact(f"{snapshot.busy}/{snapshot.worker_count}", "busy"),
        *_fact(str(nodes), "node" if nodes == 1 else "nodes", PLAIN if nodes else BAD),
        *(_fact(str(len(snapshot.nodes) - nodes), "overdue", BAD) if nodes < len(snapshot.nodes) else []),
        *_fact(duration(oldest), "oldest available"),
        *(_fact(str(paused), "paused", WARNING) if paused else []),
    ]  # fmt: skip
    yield [
        *_label("Last hour"), *_fact(number(counts.succeeded), "done"),
        *_fact(number(counts.failed), "failed", BAD if counts.failed else PLAIN),
        *_fact(number(counts.retried), "retried"),
        *_fact(number(counts.crashed), "crashed", BAD if counts.crashed else PLAIN),
        *_fact(rate(snapshot.rate), "now"),
    ]  # fmt: skip
    yield [*_label("Waited"), *_quantiles(counts.wait)]
    yield [*_label("Ran"), *_quantiles(counts.run)]


def _label(text: str) -> Line:
    return [(fit(text, LABEL), TITLE)]


def _fact(value: str, name: str, style: str = PLAIN) -> Line:
    return [(value, style), (f" {name}   ", DIM)]


def _quantiles(durations: Durations) -> Line:
    found: Line = []
    for name, fraction in (("median", 0.5), ("p95", 0.95), ("p99", 0.99), ("longest", 1.0)):
        found += _fact(duration(durations.quantile(fraction)), name)
    return found


def _charts(frame: Frame, room: int) -> Iterable[Line]:
    begin = frame.snapshot.at.replace(second=0, microsecond=0) - timedelta(minutes=MINUTES - 1)
    by_minute = {point.at: point.counts for point in frame.chart}
    minutes = [by_minute.get(begin + timedelta(minutes=each), Counts()) for each in range(MINUTES)]
    sizes = _by_minute(begin, ((depth.at, depth.available) for depth in frame.depths))
    done = [counts.succeeded for counts in minutes]
    failures = [counts.attempts - counts.succeeded for counts in minutes]
    yield _chart("Done", done, f"{short(max(done))}/min at most", GOOD, room)
    yield _chart("Errors", failures, f"{short(max(failures))}/min at most", BAD, room)
    yield _chart("Available", sizes, f"{short(max(sizes))} at most", WARNING, room)


def _by_minute(begin: datetime, values: Iterable[tuple[datetime, float]]) -> list[float]:
    found = [0.0] * MINUTES
    for at, value in values:
        minute = int((at - begin).total_seconds() // 60)
        if 0 <= minute < MINUTES:
            found[minute] = value
    return found


def _chart(name: str, values: Sequence[float], legend: str, style: str, room: int) -> Line:
    shown = min(MINUTES, max(10, room - LABEL - 20))
    return [*_label(name), (bars(values, shown), style), (f"  {legend}", DIM)]


def _busiest(queues: Sequence[QueueActivity], most: int) -> list[QueueActivity]:
    """Return the queues with most to do, then those that have failed jobs, that are paused, or that are busy."""
    rank = sorted(
        queues, key=lambda q: (-q.available, q.paused is None, -q.failed, -q.running, -q.counts.succeeded, q.name)
    )
    return rank[:most]


def table(view: View[Any], rows: Sequence[Any], now: datetime, room: int) -> list[Line]:
    """Return the lines of a table with its head."""
    if not rows:
        return [[(view.empty, DIM)]]
    texts = [[column.text(row, now) for column in view.columns] for row in rows]
    natural = natural_widths(view.columns, texts)
    for index in range(len(view.columns)):
        if not any(text[index] for text in texts):
            natural[index] = 0
    shown = widths(view.columns, natural, room)
    found = [_row([(column.title, TITLE) for column in view.columns], view, shown)]
    for row, text in zip(rows, texts, strict=True):
        styles = (column.style(row) for column in view.columns)
        found.append(_row(list(zip(text, styles, strict=True)), view, shown))
    return found


def _row(cells: Sequence[Part], view: View[Any], shown: Sequence[int]) -> Line:
    found: Line = []
    for (text, style), column, size in zip(cells, view.columns, shown, strict=True):
        if size:
            if found:
                found.append((" " * GAP, PLAIN))
            found.append((fit(text, size, right=column.right), style))
    return found


def _errors(frame: Frame, room: int) -> Iterable[Line]:
    recent = [group for group in frame.groups if frame.snapshot.at - group.last_seen < timedelta(hours=1)]
    if not recent:
        return
    yield []
    yield [("Errors of the last hour", TITLE)]
    for group in recent[:MAX_ERRORS]:
        error = harmless(f"{group.type}: {group.message}" if group.message else group.type)
        yield [
            (fit(ago(group.last_seen, frame.snapshot.at), 4, right=True), DIM), (f"{short(group.count):>7}  ", PLAIN),
            (fit(harmless(group.task), min(24, max(12, room // 4))), PLAIN), ("  ", PLAIN), (error, BAD),
        ]  # fmt: skip
    if len(recent) > MAX_ERRORS:
        yield [(f"and {len(recent) - MAX_ERRORS} more groups", DIM)]


def _findings(frame: Frame, room: int) -> Iterable[Line]:
    findings = frame.diagnosis.findings if frame.diagnosis else ()
    shown = [finding for finding in findings if finding.severity is not Severity.HINT]
    if not shown:
        return
    yield []
    yield [("Findings of the doctor", TITLE)]
    for finding in shown[:MAX_FINDINGS]:
        style = BAD if finding.severity is Severity.STOPS else WARNING
        yield [
            (f"{finding.severity.value:<8}", style),
            (fit(f"{finding.check}: {harmless(finding.summary)}", room - 8), PLAIN),
        ]
    if len(shown) > MAX_FINDINGS:
        yield [(f"and {len(shown) - MAX_FINDINGS} more", DIM)]


def cut(line: Line, room: int) -> Line:
    """Return the line without what exceeds the width."""
    found: Line = []
    for text, style in line:
        size = width(text)
        if size > room:
            if room > 0:
                found.append((fit(text, room), style))
            return found
        found.append((text, style))
        room -= size
    return found
