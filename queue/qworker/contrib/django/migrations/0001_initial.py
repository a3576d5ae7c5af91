"""The first schema."""

from django.db import migrations

from qworker.contrib.django.operations import ApplyMigration


class Migration(migrations.Migration):
    """Applies sql/0001_initial.sql."""

    initial = True
    operations = (ApplyMigration("0001_initial"),)
