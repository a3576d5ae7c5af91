"""The pages of schedules."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList

from qworker.contrib.django.admin import display
from qworker.contrib.django.admin.base import ReadOnlyAdmin
from qworker.contrib.django.models import Node


class ScheduleList(ChangeList):
    """A page of schedules with the nodes that declare them, read once."""

    def get_results(self, request: Any) -> None:
        """Add the nodes to the rows."""
        super().get_results(request)
        live = [node for node in Node.objects.all() if node.is_live()]
        self.result_list: list[Any] = list(self.result_list)
        for schedule in self.result_list:
            schedule.live = [node.name for node in live if schedule.name in node.schedules]


class ScheduleAdmin(ReadOnlyAdmin):
    """Lists schedules."""

    list_display = ("name", "task", "expression", "timezone", "ticked", "declared_by")
    search_fields = ("name", "task")
    fields = ("name", "task", "expression", "timezone", "ticked", "first_declared", "declared_by")
    readonly_fields = ("ticked", "first_declared", "declared_by")

    def get_changelist(self, request: Any, **_: Any) -> type[ScheduleList]:
        """Return the list that reads the nodes once."""
        return ScheduleList

    @admin.display(description="last tick")
    def ticked(self, schedule: Any) -> str:
        """Return the last tick that was enqueued or skipped."""
        return display.moment(schedule.last_tick)

    @admin.display(description="first declared")
    def first_declared(self, schedule: Any) -> str:
        """Return when a node declared it first."""
        return display.moment(schedule.created_at)

    @admin.display(description="live nodes", empty_value="none: it does not tick")
    def declared_by(self, schedule: Any) -> str | None:
        """Return the nodes that declare the schedule."""
        found = schedule.live if hasattr(schedule, "live") else schedule.nodes()
        return ", ".join(found) or None
