"""Filters of the list of jobs. Their choices are never read from all jobs."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.contrib.admin import SimpleListFilter
from django.utils import timezone

from qworker.contrib.django.discovery import discover_what_can_be
from qworker.contrib.django.models import Job, Node
from qworker.contrib.django.stores import application_in
from qworker.job import JobState

#: The newest jobs, in which the choices are looked up.
RECENT = 1_000
#: How many choices a filter offers.
MAX_CHOICES = 30


class Filter(SimpleListFilter):
    """A filter that also shows a value which is not among its choices."""

    #: What the value is compared with, if it is not the column with the parameter's name.
    lookup: str | None = None

    def has_output(self) -> bool:
        """Return True: without choices, too."""
        return True

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        """Return the choices."""
        found = list(dict.fromkeys(filter(None, self.names(model_admin))))
        if (value := self.used_parameters.get(self.parameter_name)) and value not in found:
            found.append(value)
        return [(name, name) for name in sorted(found)[:MAX_CHOICES]]

    def names(self, model_admin: Any) -> Iterable[str]:
        """Return the values to choose from."""
        return ()

    def queryset(self, request: Any, queryset: Any) -> Any:
        """Return the jobs with this value."""
        value = self.value()
        if value is None:
            return queryset
        if "\0" in value:  # PostgreSQL stores no NUL, and refuses a statement with one
            return queryset.none()
        return queryset.filter(**{str(self.lookup or self.parameter_name): self.wanted(value)})

    def wanted(self, value: str) -> Any:
        """Return what is looked up for a value."""
        return value


class ByState(Filter):
    """Jobs in one state."""

    title = parameter_name = "state"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        """Return the states in the order of a job's life, except the one that is reserved."""
        return [(value, value) for value, _ in Job._meta.get_field("state").choices if value != JobState.BLOCKED]


class ByQueue(Filter):
    """Jobs of a queue that a node serves, or that has recent jobs."""

    title = parameter_name = "queue"

    def names(self, model_admin: Any) -> Iterable[str]:
        """Return the queues."""
        served = (queue for node in Node.objects.only("queues") for queue in node.queues)
        return [*served, *Job.objects.values_list("queue", flat=True)[:RECENT]]


class Typed(Filter):
    """A filter whose value may be typed in."""

    template = "admin/qworker/typed_filter.html"

    def choices(self, changelist: Any) -> Iterable[dict[str, Any]]:
        """Return one choice: what the form in the template needs."""
        others = [(name, value) for name, value in changelist.params.items() if name != self.parameter_name]
        yield {
            "selected": self.value() is not None,
            "name": self.parameter_name,
            "value": self.value() or "",
            "known": [value for value, _ in self.lookup_choices],
            "others": others,
            "clear": changelist.get_query_string(remove=[self.parameter_name]),
        }


class ByTask(Typed):
    """Jobs of one task: one that this process has imported, or of recent jobs, or whatever is typed in."""

    title = parameter_name = "task"

    def names(self, model_admin: Any) -> Iterable[str]:
        """Return the names of tasks."""
        discover_what_can_be()
        return [*application_in(None).tasks, *Job.objects.values_list("task", flat=True)[:RECENT]]


class ByTag(Typed):
    """Jobs with a tag."""

    title = parameter_name = "tag"
    lookup = "tags__contains"

    def wanted(self, value: str) -> Any:
        """Return the tag as an array."""
        return [value]


class ByDate(SimpleListFilter):
    """Jobs that were enqueued since a time. The list begins with the newest, so it ends where these end."""

    title = "date enqueued"
    parameter_name = "enqueued"
    spans = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7)}  # noqa: RUF012

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        """Return the spans."""
        return [("hour", "Past hour"), ("today", "Today"), ("day", "Past 24 hours"), ("week", "Past 7 days")]

    def queryset(self, request: Any, queryset: Any) -> Any:
        """Return the jobs of the span: none if the value is not one of those above."""
        if self.value() is None:
            return queryset
        now = timezone.localtime() if timezone.is_aware(timezone.now()) else timezone.now()
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        begins = {"today": midnight} | {name: now - span for name, span in self.spans.items()}
        begin = begins.get(self.value())
        return queryset.none() if begin is None else queryset.filter(enqueued_at__gte=begin)
