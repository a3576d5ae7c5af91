"""The page of nodes and workers."""

WORKERS_BUSY = "Workers busy"
MEMORY = "Memory"
UP = "Up"
HEARTBEAT = "Heartbeat"
VERSION = "Version"
LAST_DEATH = "Last death"
WORKER = "Worker"
PID = "Pid"
PHASE = "Phase"
JOBS_RUN = "Jobs run"
NONE = "None."
EMPTY = "No node is registered."

HOW_TO_BEGIN = "Jobs are enqueued and wait. Start a node with the command qworker."
DEATH = "worker {worker} (pid {pid}), {at}: {cause}"
PAUSED = "Paused {since} by {who}"
#: Why workers and nodes have died, by the counter of each cause.
CAUSES = {
    "oom": "Out of memory", "signalled": "Killed by a signal", "exited": "Exited", "timed_out": "Timed out",
    "stalled": "Stalled", "lease_lost": "Lease lost", "supervisor_lost": "Supervisor lost", "node_lost": "Node lost",
}  # fmt: skip


def silent(age: str, lease: str) -> str:
    """Say that a node is probably dead."""
    return f"Silent for {age}: its lease of {lease} has ended, and other nodes take over its jobs."


def ask_pause(name: str) -> str:
    """Ask whether to pause a node."""
    return (
        f"Pause node {name}? Jobs that run finish, and its workers start no other one until it is resumed or "
        "started again."
    )


def paused(node: str, before: bool) -> str:
    """Say that a node is paused; before: it was already."""
    if before:
        return f"Node {node} was already paused; since when and why has not changed."
    return f"Node {node} is paused: running jobs finish, and its workers start no other one."


def resumed(node: str, before: bool) -> str:
    """Say that a node is resumed; before: it was not paused."""
    return f"Node {node} was not paused." if before else f"Node {node} is resumed."


def ago(age: str) -> str:
    """Say how long ago a node was heard of."""
    return f"{age} ago"


def deaths(number: int) -> str:
    """Say how many workers of a node have died."""
    return f"{number:,} deaths since its start"


def of_node(name: str) -> str:
    """Name the workers of a node."""
    return f"Workers of {name}"


def ended_with(period: str) -> str:
    """Name the attempts that did not end by themselves."""
    return f"Attempts that ended with their worker or node, {period}"
