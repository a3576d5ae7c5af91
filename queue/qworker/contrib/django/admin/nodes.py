"""The pages of nodes."""

from typing import Any

from django.contrib import admin
from django.utils import timezone

from qworker.contrib.django.admin import display
from qworker.contrib.django.admin.base import ReadOnlyAdmin


class NodeAdmin(ReadOnlyAdmin):
    """Lists nodes."""

    list_display = ("name", "live", "worker_count", "served", "version", "started", "heartbeat")
    fields = ("name", "live", "served", "worker_count", "version", "started", "heartbeat", "lease_seconds", "report")
    readonly_fields = ("live", "served", "started", "heartbeat", "report")

    @admin.display(description="live", boolean=True)
    def live(self, node: Any) -> bool:
        """Return whether its lease has not ended."""
        return bool(node.is_live())

    @admin.display(description="queues")
    def served(self, node: Any) -> str:
        """Return the queues."""
        return ", ".join(node.queues) or "-"

    @admin.display(description="started")
    def started(self, node: Any) -> str:
        """Return when it was started."""
        return display.moment(node.started_at)

    @admin.display(description="last heartbeat")
    def heartbeat(self, node: Any) -> str:
        """Return how long ago its lease was renewed."""
        return f"{max((timezone.now() - node.heartbeat_at).total_seconds(), 0):.0f} s ago"

    @admin.display(description="report")
    def report(self, node: Any) -> Any:
        """Return what it reports about its workers and schedules."""
        return display.structure(node.state)
