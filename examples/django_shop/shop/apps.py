"""Has qworker's tables made after each `migrate`: in the database, and in those that tests make."""

from django.apps import AppConfig
from django.db import connections
from django.db.models.signals import post_migrate

from qworker.migrations import migrate


def make_tables(using: str, **_: object) -> None:
    """Make the tables in the database of the jobs, or update them."""
    if using == "default":
        connections[using].ensure_connection()
        migrate(connections[using].connection)


class ShopConfig(AppConfig):
    name = "shop"

    def ready(self) -> None:
        post_migrate.connect(make_tables, sender=self)
