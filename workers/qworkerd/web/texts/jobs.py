"""The list of jobs, and actions on all that match."""

from qworkerd.web.texts.quantities import jobs

SAVE_VIEW = "Save view"
HELP = "How to write a filter"
ACT_ON_ALL = "Act on all that match…"
VIEWS = "Views"
SELECT_ALL = "Select all on this page"
SLOWEST = "Slowest"
ORDER = "Order"
NONE_MATCHES = "No job matches."
EMPTY = "No jobs."
ALL_MATCHING = "All jobs that match"
CORRECT = "Correct the filter"
BACK_TO_LIST = "back to the list"
SAMPLES = "Some of the jobs"
UNLIMITED = "as fast as possible"
MOVE_SELECTED = "Move the selected jobs"
SELECTED = "With the selected jobs:"
ACT_ON_SELECTED = "Actions on the selected jobs"
SEARCH_FURTHER = "Look further"
COUNT_FURTHER = "count further"

#: The views that everybody has.
FAILED, RUNNING, RETRYING, SCHEDULED = "Failed", "Running", "Retrying", "Scheduled"
WAITING_LONG, SLOW = "Waiting long", "Slow"
#: What scripts say: the button that deletes a saved view, and how many jobs are selected.
DELETE_VIEW, SELECTED_NUMBER = "Delete the view {name}", "With {number} selected:"

EXAMPLE = "queue:mail state:failed error:TimeoutError age:>1h -tag:test"
SYNTAX = (
    "Terms are separated by blanks, and a job must match them all. A comma separates alternatives, {minus} before a "
    "key negates it, {star} at the end stands for any rest, and values with blanks are written in double quotes."
)
HOW_LONG = "Jobs that have ended are kept for the days that the setting history_days says."
AT_LEAST = "At least {jobs} jobs, counted back to {at}"
NO_INDEX = "no index serves {terms}, so jobs are compared one by one."
THEIR_ORDER = "the order is that of these jobs."

CANCEL_SELECTED, DISCARD_SELECTED = "Cancel the selected jobs", "Discard the selected jobs"
ASK_CANCEL = "Cancel the selected jobs? Those that run are interrupted within about a second."
ASK_DISCARD = "Discard the selected jobs that have failed? They stay in the history, and can be run again from there."

ALL_JOBS = "all jobs"
MATCHING_AT_LEAST = "At least {jobs} jobs match, counted back to {at}; older ones belong to the operation as well"
MATCHING_OR_MORE = "{jobs} jobs or more match"
NO_RIGHT = "You have no right to do this."
ABOUT_OPERATIONS = (
    "The nodes carry it out in the background, slice by slice; it can be stopped at any time. Jobs that are enqueued "
    "from now on do not belong to it."
)
NO_NODE = "No node is live. The operation begins when one starts."
RATE = "At most this number of jobs per second"


def select(number: int) -> str:
    """Name the box of a job."""
    return f"Select job {number}"


def or_more(number: int) -> str:
    """Say how many jobs match at least."""
    return f"{number:,} jobs or more"


def searched(found: int, oldest_first: bool) -> str:
    """Say how far a search has looked, for `fill`."""
    return f"{found or 'None'} among the jobs {'up to' if oldest_first else 'back to'} {{at}}:"


def matching(number: int) -> str:
    """Say that jobs match, for `fill`, which puts in how many."""
    return "{jobs} job matches" if number == 1 else "{jobs} jobs match"


def as_operation(verb: str) -> str:
    """Name what is done to all jobs that match."""
    return f"{verb} them as an operation"


def act(verb: str, number: int, exact: bool) -> str:
    """Name the button that does it."""
    return f"{verb} {jobs(number)}" if exact else f"{verb} {number:,} or more jobs"


def created(operation: int) -> str:
    """Say that an operation was created."""
    return f"Operation {operation} has been created."
