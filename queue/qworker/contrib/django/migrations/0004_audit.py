"""The audit: who did what by hand."""

from django.db import migrations

from qworker.contrib.django.operations import ApplyMigration


class Migration(migrations.Migration):
    """Applies sql/0004_audit.sql."""

    dependencies = (("qworker", "0003_error_groups"),)
    operations = (ApplyMigration("0004_audit"),)
