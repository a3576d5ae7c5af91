"""Jobs, schedules and nodes for Django's ORM, read-only. Jobs have methods to retry, cancel or discard them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

from django.db import models
from django.utils import timezone

from qworker.contrib.django.fields import JSON, Moment, State, Strings
from qworker.contrib.django.readonly import ReadOnly, ReadOnlyManager, ReadOnlyQuerySet, table
from qworker.contrib.django.stores import application_in
from qworker.job import JobState

#: How many jobs one statement changes.
BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that failed."""

    number: Any
    at: Any
    type: str
    message: str
    traceback: str
    #: Why the worker died, or None.
    cause: Any

    @classmethod
    def of(cls, error: Any) -> Self:
        """Return the attempt of an entry of `errors`, of which nothing is sure."""
        found = error if isinstance(error, dict) else {"message": error}
        text = {name: str(found.get(name) or "") for name in ("type", "message", "traceback")}
        text["message"] = text["message"] or str(found.get("unreadable") or "")
        return cls(found.get("attempt"), found.get("at"), **text, cause=found.get("cause"))


class JobQuerySet(ReadOnlyQuerySet):
    """Jobs, with the operations that change them; each returns how many it has changed."""

    def retry(self) -> int:
        """Make those that have failed available again, with all their attempts."""
        return sum(len(application_in(self.db).admin.retry(*ids)) for ids in self._batches())

    def cancel(self) -> int:
        """Cancel those that wait, and interrupt those that run within about a second."""
        return sum(len(application_in(self.db).admin.cancel(*ids)) for ids in self._batches())

    def discard(self) -> int:
        """Move those that have failed to the history."""
        return sum(len(application_in(self.db).admin.discard(*ids)) for ids in self._batches())

    def _batches(self) -> Iterable[list[int]]:
        ids = list(self.values_list("id", flat=True))
        return (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))


class Job(ReadOnly):
    """A job, of whatever state. `qworker.Job` is the same for code without Django."""

    id = models.BigIntegerField(primary_key=True)
    state = State(max_length=20, choices=[(state.value, state.value) for state in JobState if state != "forgotten"])
    queue = models.TextField()
    priority = models.SmallIntegerField(help_text="lower first")
    task = models.TextField()
    args = JSON("arguments")
    attempt = models.IntegerField("attempts", help_text="how many have begun")
    crashes = models.SmallIntegerField(help_text="attempts that killed their worker")
    node_losses = models.SmallIntegerField(help_text="how often the whole node was lost; such attempts are not counted")
    enqueued_at = Moment("enqueued")
    run_at = Moment("not before", null=True)
    claimed_at = Moment("started", null=True, help_text="the newest attempt")
    finished_at = Moment("ended", null=True)
    duration = models.FloatField(null=True, help_text="seconds that the handler ran")
    result = JSON(null=True)
    progress = JSON(null=True)
    errors = JSON(null=True, help_text="an object for each attempt that failed, oldest first")
    tags = Strings(null=True)
    meta = JSON(null=True)
    is_hook = models.BooleanField("failure hook", help_text="runs the failure hook of the task, for another job")
    node = models.BigIntegerField(null=True)
    cancel_requested_at = Moment("cancellation requested", null=True)
    #: Whether it is in the history: completed, cancelled or discarded.
    archived = models.BooleanField()

    way_out = "use the methods retry(), cancel() and discard() of a job or of a queryset"
    objects = ReadOnlyManager.from_queryset(JobQuerySet)()

    class Meta(ReadOnly.Meta):
        db_table = table("jobs")
        ordering = ("-id",)
        # change_job allows all that can be done with a job; each of the others one thing.
        default_permissions = ("view", "change")
        permissions = (
            ("retry_job", "Can retry jobs that have failed"),
            ("cancel_job", "Can cancel jobs"),
            ("discard_job", "Can discard jobs that have failed"),
        )

    def __str__(self) -> str:
        return f"{self.id} {self.task}"

    @property
    def attempts(self) -> list[Attempt]:
        """The attempts that failed, oldest first; the last fifty are kept."""
        errors = self.errors if isinstance(self.errors, list) else [self.errors] if self.errors else []
        return [Attempt.of(error) for error in errors]

    def retry(self) -> bool:
        """Make the failed job available again with all its attempts; return False if it has not failed."""
        return bool(application_in(self._state.db).admin.retry(self.id))

    def cancel(self) -> bool:
        """Cancel the job, or interrupt it if it runs; return False if it has ended."""
        return bool(application_in(self._state.db).admin.cancel(self.id))

    def discard(self) -> bool:
        """Move the failed job to the history; return False if it has not failed."""
        return bool(application_in(self._state.db).admin.discard(self.id))


class Schedule(ReadOnly):
    """A schedule that a node declares, or has declared."""

    name = models.TextField(primary_key=True)
    task = models.TextField()
    expression = models.TextField()
    timezone = models.TextField("time zone")
    last_tick = Moment(null=True)
    created_at = Moment("first declared")

    way_out = "schedules are declared in code, by @app.cron"

    class Meta(ReadOnly.Meta):
        db_table = table("cron")
        ordering = ("name",)
        default_permissions = ("view",)

    def __str__(self) -> str:
        return str(self.name)

    def nodes(self) -> list[str]:
        """Return the names of the live nodes that declare it; without one it does not tick."""
        nodes = Node.objects.using(self._state.db).filter(state__cron__has_key=self.name)
        return sorted(node.name for node in nodes if node.is_live())


class Node(ReadOnly):
    """A node: a supervisor with its workers, until it is declared dead."""

    id = models.BigIntegerField(primary_key=True)
    name = models.TextField(help_text="host and process id")
    version = models.TextField()
    queues = Strings()
    worker_count = models.IntegerField("workers")
    started_at = Moment("started")
    heartbeat_at = Moment("heartbeat")
    lease_seconds = models.FloatField("lease", help_text="seconds after a heartbeat until it may be declared dead")
    state = JSON(help_text="what it reports about its workers and schedules")

    way_out = "nodes write their own rows"

    class Meta(ReadOnly.Meta):
        db_table = table("node")
        ordering = ("name", "id")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return str(self.name)

    @property
    def schedules(self) -> list[str]:
        """The names of the schedules that it declares."""
        found = self.state.get("cron") if isinstance(self.state, dict) else None
        return list(found) if isinstance(found, dict | list) else []

    def is_live(self) -> bool:
        """Return whether its lease has not ended, by the clock of this process."""
        return bool(self.heartbeat_at + timedelta(seconds=self.lease_seconds) > timezone.now())
