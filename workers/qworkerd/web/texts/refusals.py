"""Why a request is refused, or has failed."""

from collections.abc import Iterable

#: The titles of pages for errors.
BAD_REQUEST, NOT_FOUND, TOO_SLOW, ERROR = "Bad request", "Not found", "Too slow", "Error"
DATABASE_UNAVAILABLE, DATABASE_REFUSED = "The database does not answer", "The database refused"

#: The names of other errors, by the status of the answer, and why if nothing more is known.
STATUSES = {
    400: BAD_REQUEST, 401: "Unauthorized", 403: "Forbidden", 404: NOT_FOUND, 405: "Method not allowed",
    413: "Request entity too large", 421: "Misdirected request", 429: "Too many requests",
    500: "Internal server error", 503: "Service unavailable",
}  # fmt: skip
REASONS = {
    404: "the dashboard has no such page",
    405: "The method is not allowed for the requested URL.",
    413: "The data value transmitted exceeds the capacity limit.",
}
NO_CHANGES, NOT_NOW = "The database accepts no changes", "Something else holds a lock"
READ_ONLY = "the database is a standby or read-only at present; nothing was changed: try again when it is the primary"
LOCKED = "another session holds a lock on what was asked for; nothing was changed: try again"
SLOW = "the database needed more than two seconds for this page, and was stopped"
SESSION_ENDED = "sign in again: your session has ended, or you have not signed in yet"
UNKNOWN_USER = "you are not known here; programs send a token as Authorization: Bearer TOKEN"
FOREIGN = "this request comes from another site; open the page of the dashboard and try again"
NO_RIGHT_TO_EDIT = "you have no right to edit the arguments of a job (payload and job.edit)"
NO_RIGHT_TO_STACK = "you have no right to see what a job does (payload)"
NO_RIGHT_TO_LOG = "you have no right to see the log of a job (payload)"
NO_RIGHT_TO_ANSWER = "you have no right to see what the database has answered (payload)"
NOTHING_SELECTED = "no job is selected"
NO_OBJECT = 'the arguments are not a JSON object such as {"user_id": 42}'
TOO_DEEP = "the arguments are nested too deep"
NOT_ANSWERED = "the database did not answer"


def status(code: int) -> str:
    """Say with which status the server has answered."""
    return f"Status {code}."


def no_right_to_see(right: str) -> str:
    """Refuse a page."""
    return f"you have no right to see this page ({right})"


def no_right_to_do(right: str) -> str:
    """Refuse an action."""
    return f"you have no right to do this ({right})"


def no_right_to_search(key: str) -> str:
    """Refuse a term of a filter."""
    return f"you have no right to search by {key}"


def no_metrics(error: str) -> str:
    """Say what metrics need."""
    return f"metrics need the package prometheus-client ({error}): pip install 'pgqworker[metrics]'"


def no_region(name: str) -> str:
    """Refuse a part that a page does not have."""
    return f"this page has no region {name!r}"


def host(name: str) -> str:
    """Refuse a name of the dashboard."""
    return (
        f"the dashboard is not served under the name {name!r}; start `qworker web` with --allowed-host NAME to allow it"
    )


def too_long(name: str, length: int, longest: int) -> str:
    """Refuse a text."""
    return f"{name} has {length:,} characters, and at most {longest:,} are allowed"


def nul(name: str) -> str:
    """Refuse a text that the database cannot store."""
    return f"{name} contains a NUL character"


def missing(name: str) -> str:
    """Ask for a parameter."""
    return f"{name} is missing"


def half_interval(name: str) -> str:
    """Ask for the other end of an interval."""
    return f"{missing(name)}: an interval needs both"


def wrong(name: str, why: object) -> str:
    """Say what is wrong with a parameter."""
    return f"{name}: {why}"


def not_two_jobs(number: int) -> str:
    """Ask for exactly two jobs."""
    return f"{number:,} {'job is' if number == 1 else 'jobs are'} selected: select exactly two to compare them"


def wrong_interval(why: object) -> str:
    """Say what is wrong with an interval."""
    return f"from and to: {why}"


def no_integer(name: str, value: object, least: int, most: int) -> str:
    """Refuse a number."""
    return f"{name} is {value}, not an integer from {least} to {most}"


def no_choice(name: str, value: str, choices: Iterable[str]) -> str:
    """Refuse a value that is not one of some."""
    return f"{name} is {value!r}, not one of {', '.join(choices)}"


def no_time(name: str, value: str) -> str:
    """Refuse a time."""
    return f"{name} is {value!r}, not a time such as 2026-01-31T09:00:00+00:00"


def too_often(name: str, number: int, most: int) -> str:
    """Refuse a parameter that is given too often."""
    return f"{name} is given {number:,} times, and at most {most:,} are allowed"


def too_many_selected(number: int, most: int) -> str:
    """Refuse an action on too many jobs."""
    return f"{number:,} jobs are selected, and at most {most:,} are changed at once"


def none_matches(rule: str) -> str:
    """Refuse an operation without jobs."""
    return f"no job matches any more: {rule}"


def no_rate(text: str, most: float) -> str:
    """Refuse a rate."""
    return f"the rate is {text!r}, not a number of jobs per second up to {most:,}"


def no_json(why: object) -> str:
    """Refuse arguments."""
    return f"the arguments are not JSON: {why}"


def no_number(constant: str) -> str:
    """Refuse a constant that JSON does not have."""
    return f"{constant} is not a number of JSON"


def not_storable(why: object) -> str:
    """Refuse arguments that cannot be stored."""
    return f"the arguments cannot be stored: {why}"


def not_accepted(task: str, why: object) -> str:
    """Refuse arguments that the task does not accept."""
    return f"task {task} does not accept these arguments: {why}"


def other_task(job: int, task: str, name: str) -> str:
    """Refuse the arguments of a job of another task."""
    return f"job {job} is one of task {task!r}, not of {name!r}"


def no_task(name: str, with_application: bool) -> str:
    """Say that nobody knows a task."""
    return f"{'the application or the database' if with_application else 'the database'} knows no task {name!r}"


def task_not_enqueued(name: str) -> str:
    """Refuse to enqueue a task that only the database knows."""
    return (
        f"the dashboard knows no application with a task {name!r}, and cannot enqueue it: start the dashboard with the "
        "application"
    )


def schedule_not_run(name: str) -> str:
    """Refuse to run a schedule that only the database knows."""
    return (
        f"the dashboard knows no application with a schedule {name!r}, and cannot enqueue its job: start the dashboard "
        "with the application"
    )


def no_schedule(name: str) -> str:
    """Say that nobody knows a schedule."""
    return f"there is no schedule {name!r}: no node has declared it yet"


def no_queue(name: str) -> str:
    """Say that nobody knows a queue."""
    return f"queue {name!r} holds no jobs, has held none lately, no node serves it, and it is not paused"


def no_operation(number: object) -> str:
    """Say that there is no such operation."""
    return f"there is no operation {number}"


def ended(number: int, state: str) -> str:
    """Refuse to stop an operation that has ended."""
    return f"operation {number} has ended before: it is {state}"


def stacks_busy(number: int) -> str:
    """Refuse to ask for a stack now."""
    return f"{number} other requests wait for stacks; try again in a few seconds"


def exports_busy(number: int) -> str:
    """Refuse to export a list now."""
    return f"{number} other lists are being exported; try again in a few seconds"


def cut(why: str) -> str:
    """Say at the end of an export that it is not complete."""
    return f"cut: {why}; there are more rows"


def too_many_rows(most: int) -> str:
    """Say why an export is cut."""
    return f"{most:,} rows is the most that an export has"


def too_long_export(seconds: float) -> str:
    """Say why an export is cut."""
    return f"the export took longer than {seconds:.0f} seconds"


def bad_key(header: str, most: int) -> str:
    """Refuse a key of a request."""
    return f"{header} is not a string of 1 to {most} printable ASCII characters"


def key_reused(header: str, action: str) -> str:
    """Refuse a key that another request has had."""
    return f"this {header} was sent before with another request, which has done {action}; use another key"
