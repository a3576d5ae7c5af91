"""The overview."""

COMPLETED = "Completed"
FINDINGS = "Findings"

NO_JOB_WAITS = "no job waits"
EMPTY = "No queue has held a job yet."
HOW_TO_BEGIN = "Enqueue one, and start a node: counts are up to two minutes late, sizes 15 seconds."
#: Findings that the page itself shows.
_SHOWN = 4


def all_findings(number: int) -> str:
    """Name the link to all findings."""
    return "All findings and their remedies" if number <= _SHOWN else f"All {number:,} findings and their remedies"


def all_queues(number: int) -> str:
    """Name the link to all queues."""
    return f"All {number:,} queues"


def oldest(age: str) -> str:
    """Say how long the oldest job has waited."""
    return f"oldest {age}"


def run_p95(duration: str) -> str:
    """Say how long jobs run."""
    return f"run p95 {duration}"
