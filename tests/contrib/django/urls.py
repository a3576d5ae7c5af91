"""The pages of the project: Django's admin, and a site of its own."""

from django.contrib import admin
from django.urls import path

from qworker.contrib.django.admin import JobAdmin
from qworker.contrib.django.models import Job

ops = admin.AdminSite(name="ops")
ops.register(Job, JobAdmin)

urlpatterns = [path("admin/", admin.site.urls), path("ops/", ops.urls)]
