"""The metrics of the cluster, which are the same on every node."""

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import Metric

from qworkerd.metrics import families

STATES = ("available", "due", "scheduled", "running", "failed")


def cluster(found: Mapping[str, Any], schema: str) -> Iterator[Metric]:
    """Yield the metrics of a state that `qworker.cluster` has read."""
    states, oldest = families.gauge("qworker_queue_jobs"), families.gauge("qworker_queue_oldest_seconds")
    for queue, depth in found["queues"].items():
        for state in STATES:
            states.add_metric([schema, queue, state], depth[state])
        oldest.add_metric([schema, queue], depth["oldest"] or 0.0)
    workers = dict.fromkeys(found["queues"], 0) | found["workers"]
    yield states
    yield oldest
    yield families.gauges("qworker_queue_workers", workers, schema)
    paused = dict.fromkeys(workers, 0) | dict.fromkeys(found["paused"], 1)
    yield families.gauges("qworker_queue_paused", paused, schema)
    enqueued = families.counter("qworker_jobs_enqueued")
    enqueued.add_metric([schema], found["enqueued"])
    yield enqueued
    for name, key in (("qworker_nodes", "nodes"), ("qworker_horizon_seconds", "horizon")):
        family = families.gauge(name)
        family.add_metric([schema], found[key])
        yield family
    yield families.gauges("qworker_table_bytes", found["bytes"], schema)
    yield families.gauges("qworker_schedule_late_seconds", found["late"], schema)
    findings = families.gauge("qworker_doctor_findings")
    for check, severity, number in found["findings"]:
        findings.add_metric([schema, check, severity], number)
    yield findings
