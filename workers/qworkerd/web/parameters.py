"""Read the parameters of a request within bounds. What a user sends never determines how much work is done."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from qworker.statistics import PERIODS
from qworkerd.web import texts

#: Maximum number of characters of a name, and of a filter.
MAX_NAME, MAX_FILTER = 500, 2048
#: Rows of a page: the choices, and the default.
PAGE_SIZES, PAGE_SIZE = (20, 50, 100, 200), 50
#: Seconds between two refreshes that a user can choose; 0 for none.
REFRESH_CHOICES = (0, 1, 2, 5, 15, 60)
#: The default period of charts.
PERIOD = "1h"
#: The highest id.
MAX_ID = 2**63 - 1


class InvalidParameter(ValueError):
    """A parameter is missing, malformed or out of bounds."""


class Parameters:
    """The parameters of the query or of a form, by name."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    @property
    def values(self) -> dict[str, str]:
        """All parameters, as they were sent."""
        return dict(self._values)

    def text(self, name: str, default: str = "", *, longest: int = MAX_NAME) -> str:
        """Return a string without leading and trailing spaces."""
        value = self._values.get(name, default).strip()
        if len(value) > longest:
            raise InvalidParameter(texts.refusals.too_long(name, len(value), longest))
        if "\x00" in value:
            raise InvalidParameter(texts.refusals.nul(name))
        return value

    def required(self, name: str) -> str:
        """Return a string that is not empty."""
        value = self.text(name)
        if not value:
            raise InvalidParameter(texts.refusals.missing(name))
        return value

    def exact(self, name: str) -> str:
        """Return a string that is not empty, with its spaces: the name of something that exists."""
        value = self._values.get(name, "")
        if not value:
            raise InvalidParameter(texts.refusals.missing(name))
        if len(value) > MAX_NAME:
            raise InvalidParameter(texts.refusals.too_long(name, len(value), MAX_NAME))
        if "\x00" in value:
            raise InvalidParameter(texts.refusals.nul(name))
        return value

    def raw(self, name: str) -> str | None:
        """Return a string of any length and content; None if the parameter is missing. The form itself is limited."""
        return self._values.get(name)

    def filter(self, name: str = "q") -> str:
        """Return the text of a filter."""
        return self.text(name, longest=MAX_FILTER)

    def number(self, name: str, default: int | None = None, *, least: int = 0, most: int = MAX_ID) -> int | None:
        """Return an integer, or the default if the parameter is missing or empty."""
        value = self.text(name)
        if not value:
            return default
        if not (value.isascii() and value.isdigit() and len(value) <= len(str(MAX_ID))):
            raise InvalidParameter(texts.refusals.no_integer(name, repr(value[:40]), least, most))
        if not least <= int(value) <= most:
            raise InvalidParameter(texts.refusals.no_integer(name, value, least, most))
        return int(value)

    def choice(self, name: str, choices: Iterable[str], default: str) -> str:
        """Return one of these strings, or the default if the parameter is missing or empty."""
        value = self.text(name) or default
        if value not in (known := [*choices, default]):
            raise InvalidParameter(texts.refusals.no_choice(name, value[:40], dict.fromkeys(known)))
        return value

    def flag(self, name: str) -> bool:
        """Return whether a box is ticked."""
        return self.choice(name, ("", "0", "1", "on"), "") in {"1", "on"}

    def period(self) -> str:
        """Return the period of charts and counts: a key of PERIODS."""
        return self.choice("period", PERIODS, PERIOD)

    def page_size(self) -> int:
        """Return the number of rows of a page."""
        return int(self.choice("size", map(str, PAGE_SIZES), str(PAGE_SIZE)))

    def time(self, name: str) -> datetime | None:
        """Return an aware time from ISO 8601; a time without offset is UTC."""
        value = self.text(name, longest=40)
        if not value:
            return None
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidParameter(texts.refusals.no_time(name, value)) from None
        return found if found.tzinfo else found.replace(tzinfo=UTC)

    def numbers(self, values: Iterable[str], name: str, most: int = 1_000) -> list[int]:
        """Return the integers of a parameter that is given several times."""
        given = list(values)
        if len(given) > most:
            raise InvalidParameter(texts.refusals.too_often(name, len(given), most))
        found = [Parameters({name: value}).number(name) for value in given]
        return [number for number in found if number is not None]
