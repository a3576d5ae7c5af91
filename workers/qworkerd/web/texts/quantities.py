"""Numbers with what they count, and times in words."""

from datetime import date

#: The periods of charts.
PERIODS = {"1h": "1 h", "24h": "24 h", "7d": "7 d", "30d": "30 d"}
#: The same in sentences.
_PERIODS = {"1h": "hour", "24h": "24 hours", "7d": "7 days", "30d": "30 days"}
#: When something has happened, on pages with an interval that was chosen in a chart.
IN_THIS_TIME = "in this time"
#: Times that never come, or always were.
FOREVER, NEVER = "infinity", "-infinity"
#: A time with its zone, for `strftime`.
UTC = "%Y-%m-%d %H:%M:%S UTC"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
#: Units of rates, and of bytes.
RATES = (("s", 1), ("min", 60), ("h", 3_600))
BYTES = ("bytes", "KiB", "MiB", "GiB", "TiB")
#: After a value of which only the beginning is shown.
CUT = "\n… the rest is in the JSON of this page"


def day(at: date) -> str:
    """Return a day without its year."""
    return f"{at.day} {_MONTHS[at.month - 1]}"


def jobs(number: int) -> str:
    """Return a number of jobs."""
    return f"{number:,} {'job' if number == 1 else 'jobs'}"


def nodes(number: int) -> str:
    """Return a number of nodes."""
    return f"{number:,} {'node' if number == 1 else 'nodes'}"


def workers(number: int) -> str:
    """Return a number of workers."""
    return f"{number:,} {'worker' if number == 1 else 'workers'}"


def at_least(number: int, capped: bool) -> str:
    """Return a number; capped: there may be more."""
    return f"{number:,} or more" if capped else f"{number:,}"


def part(number: int, whole: int) -> str:
    """Return a number of all."""
    return f"{number:,} of {whole:,}"


def retried(number: int) -> str:
    """Return a number of attempts that were retried."""
    return f"{number:,} retried"


def on_average(rate: str) -> str:
    """Return the mean of a rate."""
    return f"{rate} on average"


def seconds(number: int) -> str:
    """Return a number of seconds."""
    return f"{number} s"


def exact_seconds(number: float) -> str:
    """Return a duration in full."""
    return f"{number:.3f} s"


def in_the_last(period: str) -> str:
    """Say when something has happened."""
    return f"in the last {_PERIODS[period]}"
