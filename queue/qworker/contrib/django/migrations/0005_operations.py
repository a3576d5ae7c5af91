"""Operations on all jobs that match a filter."""

from django.db import migrations

from qworker.contrib.django.operations import ApplyMigration


class Migration(migrations.Migration):
    """Applies sql/0005_operations.sql."""

    dependencies = (("qworker", "0004_audit"),)
    operations = (ApplyMigration("0005_operations"),)
