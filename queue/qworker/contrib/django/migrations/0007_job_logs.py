"""The log lines of jobs."""

from django.db import migrations

from qworker.contrib.django.operations import ApplyMigration


class Migration(migrations.Migration):
    """Applies sql/0007_job_logs.sql."""

    dependencies = (("qworker", "0006_stack_requests"),)
    operations = (ApplyMigration("0007_job_logs"),)
