"""The pages of groups of errors."""

from qworkerd.web.texts.quantities import at_least

RAISED_IN = "Raised in"
FAILED_NOW = "Failed jobs now"
FIRST_SEEN = "First seen"
LAST_SEEN = "Last seen"
FINGERPRINT = "Fingerprint"
LAST_JOBS = "Last jobs"
RESOLVE = "Resolve"
MUTE = "Mute"
REOPEN = "Reopen"
ERROR = "Error"
COUNT = "Count"
RELEASE = "Release"
AGAIN = "again"
GROUPS = "Groups of errors"
OPEN = "Open"
MUTED = "Muted"
RESOLVED = "Resolved"
EVER = "Ever"
LAST_SEEN_WITHIN = "Last seen within"
#: Errors of a time that was chosen.
BETWEEN = "Between two times"
FROM = "From (UTC)"
TO = "To (UTC)"
THEN = "In this time"
COUNT_THEN = "Then"

BARS_THEN = "Errors in this time"
NONE_THEN = "No such errors in this time."
RESOLUTION = "how often it occurred in this time, in whole parts of ten minutes"
INCOMPLETE = "Counts of errors are kept for seven days: what happened before that in this time is not counted here."
#: The choices of a period.
PERIODS = {"1h": "1 h", "24h": "24 h", "7d": "7 d"}
NO_JOB = "none"
IN_RELEASE = "in release {release}"
OF_JOB = "job {job}"
RAISED_BY = "{task} in {frame}"
REOPENED = "occurred again {at} after it was resolved"
REOPENED_BY = "occurred again {at} in release {release} after it was resolved"
HIDDEN = "Messages and tracebacks are hidden: you have no right to see them."
#: A list without groups, by the state that was asked for.
EMPTY = {
    "open": "No open errors.", "muted": "No muted errors.", "resolved": "No resolved errors.", "all": "No errors.",
}  # fmt: skip
WHAT = "Failed attempts are grouped by their cause; a new one is counted after up to ten seconds."
UNTYPED = "an error without a type"
#: The marks in the chart of a group.
FIRST_SEEN_THEN, OCCURRED_AGAIN = "first seen", "occurred again"
#: The line of its chart.
LINE = "errors"
#: What has been done to a group, by its new state.
_CHANGED = {
    "muted": "muted: it is counted, and not in the list any more",
    "resolved": "resolved: it reopens by itself if the error occurs again",
    "open": "open",
}


def retry(jobs: int, capped: bool) -> str:
    """Offer to retry the failed jobs of a group."""
    return f"Retry {at_least(jobs, capped)}…"


def number_then(number: int) -> str:
    """Say how often a group has occurred in a time."""
    times = "once" if number == 1 else f"{number:,} times"
    return f"It occurred {times} in this time, which has whole parts of ten minutes."


def bars(period: str) -> str:
    """Name the bars of a group."""
    return f"Errors in {period}"


def changed(state: str, before: bool) -> str:
    """Say what an action has done; before: the group was in this state already."""
    return f"The group was {_CHANGED[state]} already." if before else f"The group is {_CHANGED[state]}."


def unreadable(text: object) -> str:
    """Say what is stored instead of an error."""
    return f"an error that cannot be read: {text}"
