"""The page of the audit."""

AUDIT = "Audit"
SHOW = "Show"
ACTOR = "Actor"
TARGET = "Target"
DATABASE_ROLE = "Database role"
FILTER_OF_THE_AUDIT = "Filter of the audit"
EXAMPLE_ACTION = "job.retry"
EXAMPLE_SINCE = "2026-01-31T09:00"
SINCE = "Since"
UNTIL = "Until"
NONE_MATCHES = "No action matches."

EXAMPLE_UNTIL = "2026-02-01"
EMPTY = "Nobody has done anything by hand yet."
WHAT = (
    "Each retry, cancellation, discard, pause and so on is recorded by the statement that does it, and kept for 400 "
    "days."
)
#: The name of one thing, by the name of many.
SINGULAR = {
    "jobs": "job",
    "queues": "queue",
    "schedules": "schedule",
    "copies": "copy",
    "nodes": "node",
    "node_ids": "id",
}
