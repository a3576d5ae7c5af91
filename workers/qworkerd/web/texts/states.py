"""The names of states: of jobs, attempts, nodes, workers, operations, groups of errors, and of severities."""

#: By what the database and JSON have.
NAMES = {
    "available": "available", "scheduled": "scheduled", "running": "running", "completed": "completed",
    "failed": "failed", "cancelled": "cancelled", "discarded": "discarded", "expired": "expired", "lost": "lost",
    "waiting": "waiting", "succeeded": "succeeded", "retried": "retried", "snoozed": "snoozed", "paused": "paused",
    "unserved": "unserved", "live": "live", "idle": "idle", "silent": "silent", "stopped": "stopped",
    "finished": "finished", "open": "open", "muted": "muted", "resolved": "resolved", "stops": "stops",
    "warning": "warning", "hint": "hint", "booting": "booting", "claiming": "claiming", "settling": "settling",
}  # fmt: skip


def name(state: str) -> str:
    """Name a state; one that is not known has the name that it has in JSON."""
    return NAMES.get(state, state)
