"""The metrics that the processes of a node count by name: reconnects, maintenance tasks, log events."""

from collections.abc import Iterator, Mapping

from prometheus_client.core import Metric

from qworkerd.log import LEVELS
from qworkerd.metrics import families

#: The processes with connections: exported although 0, so that the first reconnect is an increase.
PROCESSES = ("scheduler", "worker")


def named(counts: Mapping[str, int]) -> Iterator[Metric]:
    """Yield the metrics; the first word of a counter's name says what it counts."""
    reconnects = families.counter("qworker_reconnects")
    seconds, errors = families.summary("qworker_maintenance_seconds"), families.counter("qworker_maintenance_errors")
    events = families.counter("qworker_log_events")
    for process in PROCESSES:
        reconnects.add_metric([process], counts.get(f"reconnected {process}", 0))
    for name, number in counts.items():
        kind, _, rest = name.partition(" ")
        if kind == "ran":
            # The sum is added after the count.
            seconds.add_metric([rest], number, counts.get(f"took {rest}", 0) / families.MICRO)
            errors.add_metric([rest], counts.get(f"failed {rest}", 0))
        elif kind in LEVELS:
            events.add_metric([rest, kind], number)
    yield from (reconnects, seconds, errors, events)
