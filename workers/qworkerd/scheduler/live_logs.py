"""Shows the log lines of running jobs to those who follow them."""

import json
from collections.abc import Iterable
from math import inf
from time import monotonic

from qworker.db.statements import Database
from qworker.job_logs import JobLogs
from qworkerd.log.job_lines import as_fields, job_lines
from qworkerd.scheduler.maintenance import MaintenanceTasks
from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Role, Slot

#: Maximum number of jobs of a node whose lines are written, and the interval (seconds).
MAX_JOBS, INTERVAL = 20, 0.3
RETENTION_INTERVAL = 600.0


class LiveLogs:
    """Reads the lines of followed jobs in shared memory, and writes them to the database.

    The worker sees in its slot that its job is followed, and stores the lines when the attempt ends.
    """

    def __init__(self, node: NodeContext, logs: JobLogs) -> None:
        self._node = node
        self._logs = logs
        self._followed: list[int] = []
        #: What was written last: the token of the attempt, and the number of its last line.
        self._written: dict[int, tuple[int, int]] = {}
        #: When to write next (monotonic); infinite while nobody follows a job of this node.
        self.due = inf

    def add_to(self, maintenance: MaintenanceTasks) -> None:
        """Add the task that deletes old requests."""
        maintenance.add("live logs", RETENTION_INTERVAL, self._logs.delete_old, deferred=True, at_end=True)

    def follow(self, jobs: Iterable[int]) -> None:
        """Take the jobs of this node that are followed, from a poll."""
        followed = list(jobs)[:MAX_JOBS]
        if followed or self._followed:
            for slot in self._node.table.live(Role.WORKER):
                if slot.words[Slot.FOLLOWED] not in followed:
                    slot.words[Slot.FOLLOWED] = 0
            self._followed = followed
            # Another follower may have deleted what was written.
            self._written.clear()
            self.due = 0.0 if followed else inf

    def write(self, database: Database) -> None:
        """Write the lines that are new."""
        self.due = monotonic() + INTERVAL if self._followed else inf
        for job in self._followed:
            found = self._find(job)
            if found is None:
                continue
            slot, token, attempt = found
            slot.words[Slot.FOLLOWED] = job
            if not job_lines.enabled:
                problem = "its node keeps no lines (job_logs = off)"
                self._logs.write(database, job, token, attempt, problem=problem)
                continue
            fields = as_fields(slot.lines.read(job, slot.floats[Slot.STARTED]))
            lines, dropped = fields.get("logs", []), fields.get("logs_dropped", 0)
            end = (token, dropped + len(lines))
            if self._written.get(job) != end:
                self._logs.write(
                    database, job, token, attempt, dropped=dropped, count=len(lines), lines=json.dumps(lines)
                )
                self._written[job] = end

    def _find(self, job: int) -> tuple[Slot, int, int] | None:
        """Return the slot of the worker that runs a job, the token of its claim, and the number of the attempt."""
        for slot in self._node.table.live(Role.WORKER):
            for claim in slot.open_claims():
                token, running = claim.token, claim.current()
                if running is not None and running.id == job:
                    return slot, token, running.attempt
        return None
