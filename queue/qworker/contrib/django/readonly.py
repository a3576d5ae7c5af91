"""Models whose rows are read with Django's ORM, and are written by qworker alone."""

from typing import Any, Never

from django.db import models

from qworker.contrib.django.configuration import Configuration
from qworker.db.statements import DEFAULT_SCHEMA
from qworker.errors import ConfigurationError, InvalidOperation


class ReadOnlyQuerySet(models.QuerySet):
    """A QuerySet that refuses to write."""

    def _refuse(self, *_: Any, **__: Any) -> Never:
        raise InvalidOperation(f"{self.model.__name__} is read-only: {self.model.way_out}")

    update = delete = create = bulk_create = bulk_update = get_or_create = update_or_create = _refuse
    _update = _insert = _raw_delete = _refuse


class ReadOnlyManager(models.Manager.from_queryset(ReadOnlyQuerySet)):  # type: ignore[misc] # of Django
    """Reads from the database that holds the jobs, unless `using` names another one."""

    def get_queryset(self) -> Any:
        """Return a QuerySet on the database of the jobs, which no router has to know."""
        return self._queryset_class(self.model, using=self.db)

    @property
    def db(self) -> str:
        """The alias of the database that is read."""
        return str(self._db or Configuration.of("default").database)


class ReadOnly(models.Model):
    """The base of the models."""

    #: What to do instead of writing.
    way_out = ""

    objects = ReadOnlyManager()

    class Meta:
        abstract = True
        managed = False
        base_manager_name = "objects"
        default_manager_name = "objects"

    def save(self, *_: Any, **__: Any) -> Never:
        """Refuse."""
        raise InvalidOperation(f"{type(self).__name__} is read-only: {self.way_out}")

    def delete(self, *_: Any, **__: Any) -> Never:
        """Refuse."""
        self.save()

    def _save_table(self, *_: Any, **__: Any) -> Never:
        """Refuse what `loaddata` does: it passes `save` by."""
        raise InvalidOperation(
            f"{type(self).__name__} is read-only, and dumpdata should leave it out: --exclude qworker. {self.way_out}"
        )


def table(name: str) -> str:
    """Return a relation of the jobs' schema as `db_table`: quoted already, with its schema."""
    try:
        schema = Configuration.of("default").schema
    except ConfigurationError:  # models are imported before the system checks report it; no query gets as far as this
        schema = DEFAULT_SCHEMA
    return f'"{schema}"."{name}"'
