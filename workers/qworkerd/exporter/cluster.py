"""The metrics of the cluster, which the scheduler has left in shared memory."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from prometheus_client.core import Metric

from qworkerd.exporter import families
from qworkerd.shared.context import NodeContext
from qworkerd.shared.header import boottime

#: What is older is not exported: the node does not reach the database, and its numbers may be wrong (seconds).
STALE_AFTER = 60.0
STATES = ("available", "due", "scheduled", "running", "failed")


def cluster(node: NodeContext) -> Iterator[Metric]:
    """Yield the metrics; none before the scheduler has read the state, or if it has not done so recently."""
    found: dict[str, Any] = {}
    with suppress(ValueError):
        found = json.loads(node.board.read())
    if not found or boottime() - found["read_at"] > STALE_AFTER:
        return
    schema = node.settings.schema
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
