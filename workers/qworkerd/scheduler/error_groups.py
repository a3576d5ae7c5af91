"""Counts failed attempts by group, and deletes old groups."""

from time import monotonic

from qworker.db.statements import Database
from qworker.error_groups import BATCH, ErrorGroups, FoldedGroup
from qworkerd import log
from qworkerd.scheduler.maintenance import MORE, MaintenanceTasks

#: Intervals of the tasks (seconds).
FOLD_INTERVAL, QUIET_INTERVAL, RETENTION_INTERVAL = 10.0, 300.0, 600.0
#: Time after which a task stops until its next turn (seconds): it must not delay the renewal of the lease.
TIME_LIMIT = 0.5


class ErrorCounting:
    """The tasks for groups of errors; each can run on every node at the same time."""

    def __init__(self, groups: ErrorGroups) -> None:
        self._groups = groups
        self._log = log.get()

    def add_to(self, maintenance: MaintenanceTasks) -> None:
        """Add the tasks."""
        maintenance.add(
            "count errors", FOLD_INTERVAL, self.fold, deferred=True, quiet_interval=QUIET_INTERVAL, at_end=True
        )
        maintenance.add("old error groups", RETENTION_INTERVAL, self.delete_old, deferred=True, at_end=True)

    def fold(self, database: Database) -> object:
        """Count failed attempts; log the groups that are new or reopened. A node without errors only looks."""
        until = monotonic() + TIME_LIMIT
        while self._groups.pending(database):
            counted, changed = self._groups.fold(database)
            for group in changed:
                self._report(group)
            if counted < BATCH:  # the rest, if any, is locked by another node
                break
            if monotonic() >= until:
                return MORE
        return None

    def _report(self, group: FoldedGroup) -> None:
        error = group.type if group.message is None else f"{group.type}: {group.message}"
        if group.is_new:
            self._log.warning("errors.new_group", fingerprint=group.fingerprint, task=group.task, error=error)
        else:
            self._log.warning(
                "errors.reopened", fingerprint=group.fingerprint, task=group.task, error=error, release=group.release
            )

    def delete_old(self, database: Database) -> object:
        """Delete old counts and groups."""
        until = monotonic() + TIME_LIMIT
        while self._groups.delete_old(database) >= BATCH:
            if monotonic() >= until:
                return MORE
        return None
