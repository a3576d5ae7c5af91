"""Requests for the stacks of running jobs."""

from django.db import migrations

from qworker.contrib.django.operations import ApplyMigration


class Migration(migrations.Migration):
    """Applies sql/0006_stack_requests.sql."""

    dependencies = (("qworker", "0005_operations"),)
    operations = (ApplyMigration("0006_stack_requests"),)
