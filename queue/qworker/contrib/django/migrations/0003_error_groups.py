"""Errors by group."""

from django.db import migrations

from qworker.contrib.django.operations import ApplyMigration


class Migration(migrations.Migration):
    """Applies sql/0003_error_groups.sql."""

    dependencies = (("qworker", "0002_statistics"),)
    operations = (ApplyMigration("0003_error_groups"),)
