"""The pages of jobs."""

from typing import Any

from django.contrib import admin, messages
from django.urls import reverse
from django.utils.html import format_html

from qworker.contrib.django.admin import display
from qworker.contrib.django.admin.actions import JobActions
from qworker.contrib.django.admin.base import ReadOnlyAdmin, parse_id
from qworker.contrib.django.admin.changelist import JobList
from qworker.contrib.django.admin.filters import ByDate, ByQueue, ByState, ByTag, ByTask


class JobAdmin(JobActions, ReadOnlyAdmin):
    """Lists jobs, shows one with its attempts, and retries, cancels or discards them."""

    list_display = ("id", "task", "shown_state", "error", "queue", "attempt", "listed", "seconds")
    list_display_links = ("id", "task")
    list_filter = (ByState, ByDate, ByQueue, ByTask, ByTag)
    list_per_page = 100
    show_full_result_count = False
    search_fields = ("id",)
    search_help_text = "Search by id."
    fieldsets = (
        (None, {"fields": ("task", "shown_state", "queue", "priority", "shown_tags", "arguments")}),
        (
            "Outcome",
            {"fields": ("shown_result", "shown_progress", "attempt", "shown_attempts", "crashes", "node_losses")},
        ),
        ("Times", {"fields": ("enqueued", "not_before", "started", "ended", "seconds", "cancellation")}),
        ("Origin", {"fields": ("node", "is_hook", "shown_meta"), "classes": ("collapse",)}),
    )
    readonly_fields = (
        "shown_state", "shown_tags", "arguments", "shown_result", "shown_progress", "shown_attempts", "shown_meta",
        "seconds", "enqueued", "not_before", "started", "ended", "cancellation",
    )  # fmt: skip

    def get_changelist(self, request: Any, **_: Any) -> type[JobList]:
        """Return the list with pages by id."""
        return JobList

    def get_search_results(self, request: Any, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """Return the job with this id; there is no search in other columns, which have no index."""
        if not search_term.strip():
            return queryset, False
        job_id = parse_id(search_term)
        if job_id is None:
            messages.warning(request, f"{search_term!r} is not the id of a job. Tasks, tags and queues have filters.")
            return queryset.none(), False
        return queryset.filter(id=job_id), False

    def get_object(self, request: Any, object_id: str, from_field: Any = None) -> Any:
        """Return a job; of two with one id, as after a restore, the newer one."""
        job_id = parse_id(object_id)
        if job_id is None:
            return None
        return self.get_queryset(request).filter(id=job_id).order_by("archived", "-finished_at").first()

    def change_view(self, request: Any, object_id: str, form_url: str = "", extra_context: Any = None) -> Any:
        """Show a job, with links to what the user may do with it."""
        job = self.get_object(request, object_id)
        buttons = [
            (action.name.capitalize(), f"{reverse(f'{self.admin_site.name}:qworker_job_{action.name}')}?job={job.id}")
            for action in (self.allowed(request, job) if job is not None else ())
        ]
        title = None if job is None else f"Job {job.id}: {job.task}"
        context = {"qworker_buttons": buttons, "title": title, "subtitle": None, **(extra_context or {})}
        return super().change_view(request, object_id, form_url, context)

    @admin.display(description="state", ordering="state")
    def shown_state(self, job: Any) -> Any:
        """Return the state in its colour."""
        return display.state(job.state)

    @admin.display(description="last error")
    def error(self, job: Any) -> Any:
        """Return the type and the beginning of the message of the last error."""
        if job.error_type is None:
            return "-"
        message = (job.error_message or "").partition("\n")[0]
        return format_html('<span title="{}">{}</span>', message, f"{job.error_type}: {message}"[:80])

    @admin.display(description="enqueued")
    def enqueued(self, job: Any) -> str:
        """Return when it was enqueued."""
        return display.moment(job.enqueued_at)

    @admin.display(description="enqueued")
    def listed(self, job: Any) -> str:
        """Return when it was enqueued, for the list: without the zone, which is the same in all rows."""
        return display.moment(job.enqueued_at, zone="")

    @admin.display(description="not before")
    def not_before(self, job: Any) -> str:
        """Return when it may start."""
        return display.moment(job.run_at)

    @admin.display(description="last started")
    def started(self, job: Any) -> str:
        """Return when the newest attempt began."""
        return display.moment(job.claimed_at)

    @admin.display(description="ended")
    def ended(self, job: Any) -> str:
        """Return when it completed, failed, or was cancelled."""
        return display.moment(job.finished_at)

    @admin.display(description="cancellation requested")
    def cancellation(self, job: Any) -> str:
        """Return when a user asked for its cancellation."""
        return display.moment(job.cancel_requested_at)

    @admin.display(description="duration")
    def seconds(self, job: Any) -> str:
        """Return how long the handler ran."""
        return "-" if job.duration is None else f"{job.duration:.3g} s"

    @admin.display(description="tags")
    def shown_tags(self, job: Any) -> str:
        """Return the tags."""
        return ", ".join(job.tags) or "-"

    @admin.display(description="arguments")
    def arguments(self, job: Any) -> Any:
        """Return the arguments by name."""
        return display.structure(job.args)

    @admin.display(description="result")
    def shown_result(self, job: Any) -> Any:
        """Return the result."""
        return display.structure(job.result)

    @admin.display(description="progress")
    def shown_progress(self, job: Any) -> Any:
        """Return the last progress report."""
        return display.structure(job.progress)

    @admin.display(description="meta")
    def shown_meta(self, job: Any) -> Any:
        """Return what qworker notes about the origin of the job."""
        return display.structure(job.meta)

    @admin.display(description="failed attempts")
    def shown_attempts(self, job: Any) -> Any:
        """Return the attempts that failed, with their tracebacks."""
        return display.attempts(job.attempts)
