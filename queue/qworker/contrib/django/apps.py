"""The app of qworker in a Django project: its migrations, models and admin pages."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class QworkerConfig(AppConfig):
    """Has `migrate` create the tables of the jobs in the databases that hold jobs."""

    name = "qworker.contrib.django"
    label = "qworker"
    verbose_name = "Background jobs"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks, what runs after each `migrate`, and the program that messages name."""
        from qworker import program
        from qworker.contrib.django import checks
        from qworker.contrib.django.schema import complete, migrate_command

        program.use("manage.py qworker", migrate_command)
        checks.register()
        post_migrate.connect(complete, sender=self, dispatch_uid="qworker")
