"""The pages of operations."""

OPERATIONS = "Operations"
OPERATION = "Operation"
CHANGED = "Changed"
SKIPPED = "Skipped"
WHY_SKIPPED = "in another state, or locked"
REFUSED = "Refused"
WHY_REFUSED = "by the database"
SPEED = "Speed"
LEFT = "Left"
UP_TO = "Up to"
BY = "By"
CREATED = "Created"
STOP = "Stop"
WHICH_OPERATIONS = "Which operations"
NONE_RUNS = "No operation runs."
EMPTY = "There are no operations."

NUMBER = "operation {number}"
WHAT = "An action on all jobs that match a filter becomes an operation: it shows its progress here, and can be stopped."
ASK_STOP = "Stop this operation after its current slice? What it has done is not undone."
FROM = "from {address}"
#: What an operation does to each job.
_NAMES = {
    "retry": "retry", "cancel": "cancel", "discard": "discard", "again": "again", "run_now": "run now", "move": "move",
}  # fmt: skip


def name(action: str) -> str:
    """Name what an operation does."""
    return _NAMES.get(action, action)


def title(number: int) -> str:
    """Name an operation."""
    return f"Operation {number}"


def heading(number: int, action: str) -> str:
    """Name an operation, and what it does."""
    return f"Operation {number}: {name(action)}"


def progress(number: int) -> str:
    """Name the bar of an operation."""
    return f"Progress of operation {number}"


def at_most(rate: str) -> str:
    """Say how fast an operation may be."""
    return f"at most {rate}"


def up_to(number: int) -> str:
    """Say which jobs belong to an operation."""
    return f"job {number}; newer jobs do not belong to it"


def ask_stop(number: int) -> str:
    """Ask whether to stop one of many operations."""
    return f"Stop operation {number} after its current slice? What it has done is not undone."


def stopped(number: int, handled: int) -> str:
    """Say that an operation stops."""
    return f"Operation {number} is stopped after {handled:,} jobs. What it has done is not undone."
