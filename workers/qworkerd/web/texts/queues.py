"""The pages of queues."""

RUN_P99 = "Run p99"
SERVED_BY = "Served by"
NOT_SERVED = "No node serves this queue."
LAST_ACTIONS = "Last actions"
LATENCY = "Latency"
DRAIN = "Drain"
SCHEDULED = "Scheduled"
RATE = "Rate"
EMPTY = "There is no queue."

LATENCY_IS = "How long the oldest job that could run has waited"
DRAIN_IS = "How long the present workers need for what waits, at the run times of the last minutes"
#: How long it takes to drain a queue that is paused, or that nobody drains.
WHILE_PAUSED, NEVER = "paused", "never"
SAMPLED = "Sizes as of {at}; the nodes sample them every 15 seconds."
NOT_SAMPLED = (
    "No node has sampled the sizes lately: the jobs that could run were counted now, up to 10,000 of each queue."
)
WHAT = "A queue appears when a job is enqueued into it, or when a node serves it."

ASK_PAUSE_THIS = "Pause this queue? Jobs that run finish, and no other one starts on any node until it is resumed."
PAUSED = "Paused {since} by {who}"
UNSERVED = "Jobs wait, and no live node serves this queue: start a node with {option} naming it."
NODES_PAUSED = "All live nodes that serve this queue are paused."
READY = "ready to run"
OF_OLDEST = "of the oldest job"
UNTIL_RESUMED, AT_PRESENT_SPEED = "until it is resumed", "at the present speed"
FOR_LATER = "for later or a retry"
VERSION = "version {version}"
NO_ACTIONS = "Nobody has paused or resumed it."


def ask_pause(name: str) -> str:
    """Ask whether to pause one of many queues."""
    return f"Pause queue {name}? Jobs that run finish, and no other one starts on any node until it is resumed."


def due(number: int) -> str:
    """Say how many of the jobs that wait were scheduled, and are due."""
    return f"{number:,} due"


def mean_run(duration: str) -> str:
    """Say how long jobs run."""
    return f"mean run {duration}"


def tasks(period: str) -> str:
    """Name the tasks whose jobs a queue has had."""
    return f"Tasks {period}"


def more_tasks(number: int) -> str:
    """Say how many tasks are not on the page."""
    return f"{number:,} more {'task is' if number == 1 else 'tasks are'} in the CSV."


def no_attempts(period: str) -> str:
    """Say that there are no tasks."""
    return f"No attempt has ended {period}; counts are up to two minutes late."


def paused(name: str, before: bool) -> str:
    """Say that a queue is paused; before: it was already."""
    if before:
        return f"Queue {name} was already paused; since when and why has not changed."
    return f"Queue {name} is paused: running jobs finish, and no other one starts."


def resumed(name: str, before: bool) -> str:
    """Say that a queue is resumed; before: it was not paused."""
    return f"Queue {name} was not paused." if before else f"Queue {name} is resumed."
