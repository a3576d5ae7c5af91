"""The pages of jobs, schedules and nodes in Django's admin.

A project with an AdminSite of its own registers the same classes there.
"""

from django.contrib import admin

from qworker.contrib.django.admin.jobs import JobAdmin
from qworker.contrib.django.admin.nodes import NodeAdmin
from qworker.contrib.django.admin.schedules import ScheduleAdmin
from qworker.contrib.django.models import Job, Node, Schedule

admin.site.register(Job, JobAdmin)
admin.site.register(Schedule, ScheduleAdmin)
admin.site.register(Node, NodeAdmin)

__all__ = ["JobAdmin", "NodeAdmin", "ScheduleAdmin"]
