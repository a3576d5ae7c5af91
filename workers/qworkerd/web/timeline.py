"""The attempts at a job as bars on a common scale of time: the delay, the wait, and the run."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from markupsafe import Markup

from qworker.attempts import Attempt, AttemptEnd

#: The height of a bar and its shortest part (pixels).
HEIGHT, SHORTEST = 14, 3
#: The colours of runs: see charts.css.
COLOURS = {
    AttemptEnd.RUNNING: "running", AttemptEnd.COMPLETED: "completed", AttemptEnd.FAILED: "failed",
    AttemptEnd.CANCELLED: "cancelled", AttemptEnd.CRASHED: "failed", AttemptEnd.LOST: "lost",
}  # fmt: skip

#: A part of an attempt: its kind, its beginning and its end.
Part = tuple[str, datetime, datetime]


def bars(attempts: Sequence[Attempt], now: datetime | None = None, whole: float = 0.0) -> list[Markup]:
    """Return a bar for each attempt; the table beside them has the numbers.

    now: the end of what goes on. whole: the length of the scale, if it is longer than the attempts (seconds).
    """
    now = now or datetime.now(UTC)
    parts = [list(_parts(attempt, now)) for attempt in attempts]
    known = [at for each in parts for _, begin, end in each for at in (begin, end)]
    if not known:
        return [Markup()] * len(parts)
    first, whole = min(known), max((max(known) - min(known)).total_seconds(), whole, 0.001)

    def fraction(at: datetime) -> float:
        return (at - first).total_seconds() / whole

    return [
        Markup('<svg class="attempt" width="100%" height="{}" aria-hidden="true">{}</svg>').format(
            HEIGHT, Markup().join(_rectangle(kind, fraction(begin), fraction(end)) for kind, begin, end in each)
        )
        for each in parts
    ]


def length(attempts: Sequence[Attempt], now: datetime | None = None) -> float:
    """Return how long the bars of attempts are (seconds)."""
    known = [at for each in attempts for _, *ends in _parts(each, now or datetime.now(UTC)) for at in ends]
    return (max(known) - min(known)).total_seconds() if known else 0.0


def _rectangle(kind: str, begin: float, end: float) -> Markup:
    thin = kind in {"delay", "wait"}
    y, height = (HEIGHT // 2 - 1, 3) if thin else (1, HEIGHT - 2)
    # The shortest run is visible: a rectangle of a few pixels lies below the one of its true width.
    least = Markup() if thin else Markup('<rect class="part {}" x="{:.3%}" y="{}" width="{}" height="{}"/>').format(
        kind, min(begin, 0.996), y, SHORTEST, height
    )  # fmt: skip
    return least + Markup('<rect class="part {}" x="{:.3%}" y="{}" width="{:.3%}" height="{}"/>').format(
        kind, begin, y, end - begin, height
    )


def _parts(attempt: Attempt, now: datetime) -> Iterator[Part]:
    since, due, began = attempt.since, attempt.due_at, attempt.began_at
    if attempt.end is AttemptEnd.WAITING:
        if since is not None and due is not None:
            yield "delay", since, due
        if (start := due or since) is not None and start < now:
            yield "wait", start, now
        return
    until = began or attempt.ended_at
    if since is not None and due is not None and until is not None and due <= until:
        yield "delay", since, due
        since = due
    if since is not None and until is not None and since <= until:
        yield "wait", since, until
    if began is not None:
        yield f"run c-{COLOURS[attempt.end]}", began, max(attempt.ended_at or now, began)
    elif attempt.ended_at is not None:
        yield f"run c-{COLOURS[attempt.end]}", attempt.ended_at, attempt.ended_at
