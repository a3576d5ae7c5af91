"""How a job compares with what is usual, and with another job."""

from qworker.durations import format_ratio

COMPARE = "Compare"
COMPARE_TWO = "Compare two"
WITH_LAST = "The last successful run"
WITH_LAST_HELP = "Compare with the last successful run of the same task in the same queue, or with another job."
ANOTHER = "Another job"
OTHER_ID = "Number of the other job"
BOTH = "Jobs {a} and {b}"
ONE = "Job {a}"
SWAP = "Swap"
ITSELF = "Both are the same job."
OPTIONS = "Options"
TIMES = "Times"
TOTAL = "In all"
TOGETHER = "Compared"
ALL_FACTS_EQUAL = "No option differs."
NOT_STORED = "not stored"
OF_THE_TASK = "that of the task"
PATH = "Argument"
MISSING = "missing"
MASKED = "They differ in what is masked or not shown."
ARGUMENTS_EQUAL = "The arguments are equal."
INCOMPLETE = "The arguments are large: only their first 20,000 parts were compared."
NO_ERRORS = "Neither job has an error."
SAME_FRAMES = "Both have failed at the same place"
FRAMES = "Innermost frames"
NO_TRACEBACK = "No traceback is stored."
SAME_LOG = "The last lines say the same"
NO_LOG = "No lines are stored."
NONE_FOUND = "No other successful run of {task} in {queue} is stored."
NONE_SO_FAR = "No other successful run of {task} in {queue} among the jobs since {at}."
#: The options of a job, and where it ran.
FACTS = {
    "state": "State", "task": "Task", "queue": "Queue", "priority": "Priority", "tags": "Tags", "timeout": "Timeout",
    "retry": "Retries", "attempt": "Attempts", "node": "Node", "node_version": "Version of the node",
    "deployed": "Newest version then", "release": "Release that failed", "cron": "Schedule", "copy_of": "Copy of",
}  # fmt: skip
NOTHING_TYPICAL = "No attempt of this task has been counted in this queue in the last 24 hours."
#: Ratios between these are about 1: the median itself is off by up to 9 %.
_ABOUT = (0.91, 1.1)


def against(ratio: float | None, beyond: bool) -> str:
    """Compare a duration with the median; beyond: it is longer than the 95th percentile."""
    if ratio is None:
        found = "the median is under 1 ms"
    elif _ABOUT[0] <= ratio <= _ABOUT[1]:
        found = "about the median"
    else:
        found = f"{format_ratio(ratio)} \N{MULTIPLICATION SIGN} the median"
    return f"{found}, above p95" if beyond else found


def typical(number: int) -> str:
    """Say what is usual for attempts of a task in a queue."""
    attempts = f"{number:,} {'attempt' if number == 1 else 'attempts'}"
    return (
        f"In the last 24 hours, {attempts} of this task ended in this queue: median wait {{wait}}, p95 {{wait_high}}; "
        "median run {run}, p95 {run_high}."
    )


def longer(names: tuple[int, int], durations: tuple[float | None, float | None]) -> str:
    """Say which of two jobs took longer, and by how much; nothing if that is unknown."""
    a, b = durations
    if a is None or b is None:
        return ""
    if min(a, b) <= 0 or _ABOUT[0] <= a / b <= _ABOUT[1]:
        return "about as long" if abs(a - b) < max(a, b) or a == b else ""
    long, ratio = (names[0], a / b) if a > b else (names[1], b / a)
    return f"job {long}: {format_ratio(ratio)} \N{MULTIPLICATION SIGN} as long"


def equal_values(number: int) -> str:
    """Name the parts of the arguments that both jobs have in common."""
    return f"{number:,} equal {'value' if number == 1 else 'values'}"


def equal_facts(number: int) -> str:
    """Name the options that both jobs have in common, or of which one is not known."""
    return f"{number:,} that {'does' if number == 1 else 'do'} not differ"


def more_differences(number: int) -> str:
    """Say how many differences are not shown."""
    return f"{number:,} more differences are not shown."


def lines_of(number: int) -> str:
    """Name the last lines of a log."""
    return f"Last lines of attempt {number}"
