"""Model fields for columns of qworker, whose rows may have been edited by hand: no value makes a query fail."""

from typing import Any

from django.db import models
from django.db.models.expressions import Col
from django.db.models.lookups import Exact, In

from qworker.decoding import decode
from qworker.job import UNFINISHED, JobState

#: The states of the jobs in the table `job`. All others are in the history.
LIVE = frozenset(map(str, (*UNFINISHED, JobState.FAILED)))


class JSON(models.JSONField):
    """JSON that any client may have written; what Python cannot decode is a `qworker.decoding.Unreadable`."""

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Decode without an exception; a value below a key is left to Django."""
        return decode(value) if isinstance(expression, Col) else super().from_db_value(value, expression, connection)


class Moment(models.DateTimeField):
    """A time, clamped to the years that Python knows; PostgreSQL's include infinity."""

    def select_format(self, compiler: Any, sql: str, params: Any) -> Any:
        """Clamp where a row is read; conditions and the order are those of the column."""
        clamped = f"least(greatest({sql}, '0001-01-02 00:00:00+00'), '9999-12-30 00:00:00+00')"
        return f"CASE WHEN {sql} IS NOT NULL THEN {clamped} END", (*params, *params)


class Strings(models.Field):
    """An array of strings: `filter(tags__contains=["import"])`. Unlike ArrayField, it needs no other app."""

    def db_type(self, connection: Any) -> str:
        """Return the type of the column."""
        return "text[]"

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> list[str]:
        """Return a list, which is empty for NULL."""
        return [str(element) for element in value or ()]

    def get_prep_value(self, value: Any) -> Any:
        """Return a list; a string would be taken for a list of characters."""
        if value is None or isinstance(value, list | tuple | set | frozenset):
            return None if value is None else [str(element) for element in value]
        raise TypeError(f"{self.name} takes a list of strings, not {value!r}")


@Strings.register_lookup
class Contains(models.Lookup):
    """All of these strings are in the array."""

    lookup_name = "contains"

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        """Return the condition."""
        left, left_params = self.process_lhs(compiler, connection)
        right, right_params = self.process_rhs(compiler, connection)
        return f"{left} OPERATOR(pg_catalog.@>) {right}::text[]", [*left_params, *right_params]


class State(models.CharField):
    """The state of a job."""

    def get_prep_value(self, value: Any) -> Any:
        """Return a plain string, also for a JobState."""
        value = super().get_prep_value(value)
        return value if value is None else str(value)


class _OneTable:
    """Adds the condition that follows from the states, so that PostgreSQL leaves out a table that has no such jobs."""

    lhs: Any
    rhs: Any

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        """Return the condition on the state, and on the table."""
        sql, params = super().as_sql(compiler, connection)  # type: ignore[misc] # of a lookup
        states = {self.rhs} if isinstance(self.rhs, str) else self.rhs
        if not isinstance(self.lhs, Col) or not isinstance(states, set | frozenset | list | tuple) or not states:
            return sql, params
        live = {str(state) in LIVE for state in states}
        if len(live) > 1:
            return sql, params
        # Django 6.1 has deprecated the older name.
        quote_name = getattr(compiler, "quote_name", None) or compiler.quote_name_unless_alias
        column = f"{quote_name(self.lhs.alias)}.archived"
        return f"({sql} AND {'NOT ' if live == {True} else ''}{column})", list(params)


@State.register_lookup
class InState(_OneTable, Exact):
    """`state="failed"`."""


@State.register_lookup
class InStates(_OneTable, In):
    """`state__in=["failed", "running"]`."""
