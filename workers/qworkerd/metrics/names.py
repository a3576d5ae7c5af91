"""The metrics: names, help, labels and types. The dashboard and the alerts are checked against this list."""

from typing import NamedTuple

#: The upper bounds of the buckets of job durations (seconds): 1 ms to 4.7 h.
BOUNDS = [0.001 * 4**power for power in range(13)]


class Metric(NamedTuple):
    """A metric, without the suffix that its type adds."""

    type: str
    help: str
    labels: tuple[str, ...] = ()


METRICS = {
    "qworker_build": Metric(
        "info",
        "The versions of qworker and Python, and the schema that the node works in.",
        ("version", "python", "schema"),
    ),
    "qworker_jobs": Metric("counter", "Jobs that have ended.", ("queue", "task", "outcome")),
    "qworker_attempts": Metric("counter", "Attempts that have ended.", ("queue", "task", "outcome")),
    "qworker_job_run_seconds": Metric("histogram", "Run time of handlers.", ("queue", "task")),
    "qworker_job_wait_seconds": Metric(
        "histogram", "Time from when a job could start to its claim.", ("queue", "task")
    ),
    "qworker_jobs_running": Metric("gauge", "Jobs whose handler runs.", ("queue", "task")),
    "qworker_job_running_seconds_max": Metric(
        "gauge", "Time since the longest running handler was called.", ("queue", "task")
    ),
    "qworker_workers": Metric("gauge", "Worker processes by what they do.", ("phase",)),
    "qworker_worker_deaths": Metric("counter", "Children that died unexpectedly.", ("cause",)),
    "qworker_worker_resident_memory_bytes": Metric("gauge", "Resident memory of the workers.", ("stat",)),
    "qworker_worker_cpu_seconds": Metric("counter", "Processor time of children, including dead ones."),
    "qworker_claims": Metric("counter", "Claims, by whether they found jobs.", ("result",)),
    "qworker_claim_seconds": Metric("histogram", "Duration of claims."),
    "qworker_acknowledge_seconds": Metric("histogram", "Duration of writes that settle jobs."),
    "qworker_unacknowledged_jobs": Metric("gauge", "Jobs that have ended, and whose outcome is not stored yet."),
    "qworker_refused_writes": Metric("counter", "Writes that were fenced off, because the claim had ended."),
    "qworker_lease_remaining_seconds": Metric("gauge", "Time until the lease of the node ends."),
    "qworker_node_paused": Metric("gauge", "Whether the node is paused."),
    "qworker_database_up": Metric("gauge", "Whether the lease was renewed in the last seconds."),
    "qworker_reconnects": Metric("counter", "Database connections that were lost and made again.", ("process",)),
    "qworker_nodes_lost": Metric("counter", "Other nodes that this node has declared dead."),
    "qworker_maintenance_seconds": Metric("summary", "Duration of the scheduler's maintenance tasks.", ("action",)),
    "qworker_maintenance_errors": Metric("counter", "Maintenance tasks that have failed.", ("action",)),
    "qworker_log_events": Metric("counter", "Warnings and errors that were logged.", ("event", "level")),
    "qworker_queue_jobs": Metric("gauge", "Jobs of the cluster, sampled.", ("schema", "queue", "state")),
    "qworker_queue_oldest_seconds": Metric("gauge", "Wait of the oldest available job.", ("schema", "queue")),
    "qworker_queue_paused": Metric("gauge", "Whether the queue is paused.", ("schema", "queue")),
    "qworker_queue_workers": Metric("gauge", "Workers that claim jobs of the queue.", ("schema", "queue")),
    "qworker_jobs_enqueued": Metric("counter", "Jobs enqueued in the cluster, by the sequence of ids.", ("schema",)),
    "qworker_nodes": Metric("gauge", "Live nodes of the cluster.", ("schema",)),
    "qworker_horizon_seconds": Metric("gauge", "Age of the oldest transaction that keeps dead rows.", ("schema",)),
    "qworker_table_bytes": Metric("gauge", "Size of a table with its indexes.", ("schema", "table")),
    "qworker_schedule_late_seconds": Metric(
        "gauge", "Time since the next tick of the schedule was due.", ("schema", "schedule")
    ),
    "qworker_doctor_findings": Metric(
        "gauge",
        "Problems that the checks have found; exported by the node that makes them.",
        ("schema", "check", "severity"),
    ),
}

_SUFFIXES = {
    "info": ("_info",), "counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count"),
    "summary": ("_sum", "_count"),
}  # fmt: skip


def samples() -> dict[str, Metric]:
    """Return the names under which Prometheus stores the metrics."""
    return {name + suffix: metric for name, metric in METRICS.items() for suffix in _SUFFIXES[metric.type]}
