"""Django's `flush`, which also deletes jobs. It runs between two tests of a TransactionTestCase."""

from typing import Any

from django.core.management.base import CommandError
from django.core.management.commands.flush import Command as FlushCommand
from django.db import connections

from qworker.contrib.django.schema import empty
from qworker.contrib.django.stores import holds_jobs, schemas


class Command(FlushCommand):
    """Removes ALL DATA of the models and of the jobs from the database."""

    def handle(self, **options: Any) -> None:
        """Ask once for both, and empty both."""
        alias = options["database"]
        if not holds_jobs(alias):
            super().handle(**options)
            return
        if options["interactive"]:
            name = connections[alias].settings_dict["NAME"]
            question = (
                f"This deletes ALL DATA of the database {name!r}, and the jobs in its schema "
                f"{', '.join(schemas(alias))}, for ever. Type 'yes' to continue: "
            )
            if input(question) != "yes":
                raise CommandError("Nothing was deleted.")
        super().handle(**{**options, "interactive": False})
        empty(alias)
