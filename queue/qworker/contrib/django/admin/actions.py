"""Retry, cancel and discard: a page that asks, the permission of each, and an entry in the log for each job."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import django
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse

from qworker.actor import Via, acting_as
from qworker.contrib.django.admin.base import parse_id
from qworker.contrib.django.admin.changelist import MAX_COUNT
from qworker.contrib.django.models import Job
from qworker.contrib.django.stores import application_in
from qworker.job import JobState

#: How many of the jobs a page that asks lists.
LISTED = 20


@dataclass(frozen=True)
class Action:
    """Something that is done with jobs."""

    name: str
    #: States of the jobs with which it can be done.
    states: frozenset[str]
    #: What it does to them, for the page that asks.
    effect: str
    #: What it has done, for the log of Django.
    done: str
    #: What the others are, if it was not done.
    otherwise: str


ACTIONS = {
    action.name: action
    for action in (
        Action(
            "retry", frozenset({"failed"}),
            "They become available again, with all their attempts. Their errors are kept.",
            "Retried", "had not failed",
        ),
        Action(
            "cancel", frozenset({"scheduled", "blocked", "available", "running"}),
            "Those that wait are cancelled at once. Those that run are interrupted within about a second.",
            "Cancelled", "had ended or failed",
        ),
        Action(
            "discard", frozenset({"failed"}),
            "They are moved to the history as discarded, and cannot be retried any more.",
            "Discarded", "had not failed",
        ),
    )
}  # fmt: skip


class JobActions(admin.ModelAdmin):
    """The actions of the list and of the page of a job."""

    actions = tuple(ACTIONS)

    @admin.action(permissions=["retry"], description="Retry selected jobs")
    def retry(self, request: Any, queryset: Any) -> Any:
        """Ask whether to retry jobs."""
        return self._ask(request, ACTIONS["retry"], _ids(queryset))

    @admin.action(permissions=["cancel"], description="Cancel selected jobs")
    def cancel(self, request: Any, queryset: Any) -> Any:
        """Ask whether to cancel jobs."""
        return self._ask(request, ACTIONS["cancel"], _ids(queryset))

    @admin.action(permissions=["discard"], description="Discard selected jobs")
    def discard(self, request: Any, queryset: Any) -> Any:
        """Ask whether to discard jobs."""
        return self._ask(request, ACTIONS["discard"], _ids(queryset))

    def has_retry_permission(self, request: Any) -> bool:
        """Return whether a user may retry jobs."""
        return self._may(request, "retry")

    def has_cancel_permission(self, request: Any) -> bool:
        """Return whether a user may cancel jobs."""
        return self._may(request, "cancel")

    def has_discard_permission(self, request: Any) -> bool:
        """Return whether a user may discard jobs."""
        return self._may(request, "discard")

    def get_urls(self) -> list[Any]:
        """Return a page for each action, which asks, and acts when it is answered."""
        pages = [
            path(f"{name}/", self.admin_site.admin_view(self._view(action)), name=f"qworker_job_{name}")
            for name, action in ACTIONS.items()
        ]
        return [*pages, *super().get_urls()]

    def allowed(self, request: Any, job: Any) -> list[Action]:
        """Return what a user may do with a job in its state."""
        return [action for action in ACTIONS.values() if job.state in action.states and self._may(request, action.name)]

    def _may(self, request: Any, name: str) -> bool:
        return any(request.user.has_perm(f"qworker.{permission}_job") for permission in ("change", name))

    def _view(self, action: Action) -> Callable[[Any], Any]:
        def view(request: Any) -> Any:
            if not self._may(request, action.name) or not self.has_view_permission(request):
                raise PermissionDenied
            ids = _parse(request.POST.get("ids") or request.GET.get("job") or "")
            return self._perform(request, action, ids) if request.method == "POST" else self._ask(request, action, ids)

        return view

    def _ask(self, request: Any, action: Action, ids: list[int]) -> Any:
        found = Job.objects.filter(id__in=ids)
        fit = [job for job in found.only("id", "state", "task", "queue") if job.state in action.states]
        if not fit:
            messages.warning(request, f"None of the selected jobs can be changed: all {action.otherwise}.")
            return self._back(request)
        context = {
            **self.admin_site.each_context(request),
            "title": f"{action.name.capitalize()} {_number_of(len(fit))}?",
            "opts": Job._meta,
            "crumbs_are_list": django.VERSION >= (6, 1),
            "action": action,
            "jobs": fit[:LISTED],
            "more": len(fit) - LISTED,
            "others": len(ids) - len(fit),
            "ids": ",".join(str(job.id) for job in fit),
            "url": reverse(f"{self.admin_site.name}:qworker_job_{action.name}"),
            "job": request.GET.get("job", ""),
            "filters": request.GET.urlencode(),
            "back": self._back(request).url,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/qworker/job/confirm.html", context)

    def _perform(self, request: Any, action: Action, ids: list[int]) -> Any:
        """Do it and log it, in one transaction if the jobs and the log of Django are in one database."""
        objects = Job.objects.filter(id__in=ids)
        with transaction.atomic(using=objects.db):
            names = {job.id: str(job) for job in objects.only("id", "task")}
            with acting_as(request.user.get_username(), via=Via.DJANGO, address=request.META.get("REMOTE_ADDR")):
                found = getattr(application_in(objects.db).admin, action.name)(*ids)
            changed: dict[int, Any] = found if isinstance(found, dict) else dict.fromkeys(found)
            content_type = ContentType.objects.get_for_model(Job).pk
            LogEntry.objects.bulk_create(
                LogEntry(
                    user_id=request.user.pk, content_type_id=content_type, object_id=str(job_id),
                    object_repr=names.get(job_id, str(job_id))[:200], action_flag=CHANGE,
                    change_message="Cancellation requested." if state == JobState.RUNNING else f"{action.done}.",
                )
                for job_id, state in changed.items()
            )  # fmt: skip
        if changed:
            messages.success(request, f"{action.done} {_number_of(len(changed))}.")
        if len(changed) < len(ids):
            messages.warning(request, f"{_number_of(len(ids) - len(changed))} {action.otherwise} meanwhile.")
        return self._back(request)

    def _back(self, request: Any) -> HttpResponseRedirect:
        """Return to the page of the job, if the way began there, or to the list with its filters."""
        name = f"{self.admin_site.name}:qworker_job"
        job_id = parse_id(request.POST.get("job") or request.GET.get("job"))
        if job_id is not None:
            return HttpResponseRedirect(reverse(f"{name}_change", args=[job_id]))
        filters = request.POST.get("filters") or request.GET.urlencode()
        return HttpResponseRedirect(f"{reverse(f'{name}_changelist')}{'?' if filters else ''}{filters}")


def _ids(queryset: Any) -> list[int]:
    return list(queryset.order_by("-id").values_list("id", flat=True)[:MAX_COUNT])


def _parse(text: str) -> list[int]:
    found = [parse_id(part) for part in text.split(",", MAX_COUNT)[:MAX_COUNT]]
    return [job_id for job_id in found if job_id is not None]


def _number_of(count: int) -> str:
    return f"{count} job" if count == 1 else f"{count:,} jobs"
