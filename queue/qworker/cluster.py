"""Read the state of the cluster for metrics."""

import json
from typing import Any

from qworker.db.statements import DEFAULT_SCHEMA, Database, Statements

#: An older sample of the queues is not reported (seconds).
SAMPLE_AGE = 900.0


class Cluster(Statements):
    """The statement about the cluster."""

    __slots__ = ()

    def __init__(self, schema: str = DEFAULT_SCHEMA) -> None:
        super().__init__("cluster", schema)

    def gauges(self, database: Database) -> dict[str, Any]:
        """Return the state of the cluster.

        The keys are queues, workers, paused, nodes, enqueued, horizon (seconds), bytes, schedules (each with its name,
        expression, time zone and last tick) and at, the time of the database (since 1970).
        """
        found: dict[str, Any] = json.loads(self._scalar(database, "gauges", sample_age=SAMPLE_AGE))
        return found
