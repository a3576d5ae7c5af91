"""Charts: their titles, what they show, and how they are read aloud."""

THROUGHPUT = "Attempts that ended"
WAIT, RUN = "Time that jobs waited", "Time that jobs ran"
IN_QUEUES, IN_QUEUE = "Jobs in the queues", "Jobs in the queue"
NUMBERS, FROM = "Numbers", "From"
EMPTY = "nothing in this period"
#: What the script says of a chart that has the focus.
KEYS = "Arrow keys read the chart; Shift selects, Enter shows that time"
#: What a line or a part of a bar shows, by its kind.
_SERIES = {
    "completed": "completed", "retried": "retried", "failed": "failed", "cancelled": "cancelled", "lost": "lost",
    "running": "running", "waiting": "waiting", "p50": "p50", "p95": "p95", "p99": "p99",
}  # fmt: skip


def series(kind: str) -> str:
    """Name a line or a part of a bar."""
    return _SERIES.get(kind, kind)


def numbers_of(title: str) -> str:
    """Name the table of a chart."""
    return f"{NUMBERS}: {title}"


def mark(name: str, time: str) -> str:
    """Describe a mark, such as a deployment."""
    return f"{name} at {time}"


def interval(begin: str, end: str) -> str:
    """Describe the time of a chart."""
    return f"{begin} to {end}"


def none(name: str) -> str:
    """Describe a line that is empty."""
    return f"{name}: none"


def highest(name: str, total: str | None, top: str, time: str) -> str:
    """Describe a line; total: the sum of its values, if they are counts."""
    counted = "" if total is None else f"{total} in all, "
    return f"{name}: {counted}at most {top} at {time}"


def small(title: str, top: str, last: str) -> str:
    """Describe a chart without axes."""
    return f"{title}: highest {top}, last {last}"
