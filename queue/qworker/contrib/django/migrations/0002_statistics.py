"""Statistics."""

from django.db import migrations

from qworker.contrib.django.operations import ApplyMigration


class Migration(migrations.Migration):
    """Applies sql/0002_statistics.sql."""

    dependencies = (("qworker", "0001_initial"),)
    operations = (ApplyMigration("0002_statistics"),)
