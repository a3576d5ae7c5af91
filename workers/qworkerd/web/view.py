"""One request of a page or an action: what a page function gets, and how its answer is sent."""

from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from hashlib import sha256
from time import time
from typing import Any, TypeVar
from urllib.parse import urlencode

import psycopg
from flask import request

from qworker.app import App
from qworkerd.web.access import Access
from qworkerd.web.ages import COUNTED
from qworkerd.web.parameters import REFRESH_CHOICES, Parameters
from qworkerd.web.shared import Shared
from qworkerd.web.source import Source
from qworkerd.web.spans import Span, span_of

T = TypeVar("T")
#: How long an answer lives (seconds), which may depend on the answer.
Period = float | Callable[[T], float]

#: The parameter that asks for one region of a page.
REGION = "region"
#: Cookies, and the values that they may have; the first one is the default.
PREFERENCES = {
    "theme": ("system", "light", "dark"),
    "time": ("relative", "local", "utc"),
    "refresh": ("auto", *map(str, REFRESH_CHOICES)),
}


@dataclass(frozen=True, slots=True)
class View:
    """What a page function may read."""

    source: Source
    shared: Shared
    #: The user and the rights of the user.
    access: Access
    #: The parameters of the URL.
    parameters: Parameters
    #: The fields of the form of an action.
    form: Parameters
    #: The part of the page that is refreshed; None for the whole page.
    region: str | None = None
    #: What the user has chosen, by the names in PREFERENCES.
    preferences: Mapping[str, str] = field(default_factory=dict)
    #: By the clock of `shared`: answers that were begun before do not know yet what the user has done.
    since: float = 0.0

    @property
    def app(self) -> App | None:
        """The application; None if only the database is known."""
        return self.source.app

    def may(self, action: str) -> bool:
        """Return whether the user may do something; templates show no button for what is not allowed."""
        return self.access.may(action)

    def database(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        """Borrow a read-only connection, whose statements end after two seconds."""
        return self.source.readers.connection(None)

    def writing(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        """Borrow a connection for an action."""
        return self.source.writers.connection(None)

    def share(self, key: Hashable, period: Period[T], make: Callable[[psycopg.Connection[Any]], T]) -> T:
        """Return an answer that all viewers share, and that is made at most once in `period` seconds.

        key: names the answer with everything that it depends on; never the user. period: one of `qworkerd.web.ages`.
        make: gets a read-only connection.
        """
        return self.get(key, period, lambda: self._read(make))

    def get(self, key: Hashable, period: Period[T], make: Callable[[], T], *, large: bool = False) -> T:
        """Return such an answer, which `make` reads on a connection of its own; large: see `Shared.get`.

        All that pages read passes here.
        """
        return self.shared.get(key, period, make, since=self.since, large=large)

    def share_counts(self, key: Hashable, make: Callable[[psycopg.Connection[Any]], T]) -> T:
        """Return what is counted over a period: if it takes long, what was read before; see `Shared.renewed`."""
        return self.shared.renewed(key, COUNTED, lambda: self._read(make))

    def share_late(
        self, key: Hashable, period: float, make: Callable[[psycopg.Connection[Any]], T], *, wait: float = 0.3
    ) -> T | None:
        """Return the last such answer, however old, while another thread makes a new one; see `Shared.latest`."""
        return self.shared.latest(key, period, lambda: self._read(make), wait=wait)

    def _read(self, make: Callable[[psycopg.Connection[Any]], T]) -> T:
        with self.database() as conn:
            return make(conn)

    def once(self, *subject: str) -> str:
        """Return a string for a hidden field, by which a form that is sent twice is known.

        It is another one after an action, and each minute; otherwise it stays, and so does the region that contains it.
        """
        return digest(self.shared.secret, self.shared.actions, int(time() // 60), self.access.user, *subject)

    def ids(self, name: str = "id") -> list[int]:
        """Return the numbers of a field of the form that was given several times, such as ticked boxes."""
        return self.form.numbers(request.form.getlist(name), name)

    def span(self) -> Span:
        """Return the time of which the page shows counts."""
        return span_of(self.parameters)

    def url(self, **changes: object) -> str:
        """Return the address of this page with some parameters changed, and without those that are None or empty."""
        found = {name: value for name, value in request.args.items(multi=True) if name not in (REGION, *changes)}
        found |= {name: str(value) for name, value in changes.items() if value not in {None, ""}}
        query = urlencode(found)
        return f"{request.script_root}{request.path}" + (f"?{query}" if query else "")

    def region_url(self, name: str) -> str:
        """Return the address of a region of this page, with the present parameters."""
        return self.url(**{REGION: name})

    def suffixed(self, suffix: str) -> str:
        """Return the address of this page as JSON or CSV."""
        path, _, query = self.url().partition("?")
        path = f"{path.rstrip('/')}/overview" if path.rstrip("/") == request.script_root else path
        return f"{path}.{suffix}" + (f"?{query}" if query else "")


def preferences() -> dict[str, str]:
    """Return what the user has chosen; values that are not known are the defaults."""
    chosen = {name: request.cookies.get(f"qworker_{name}", "") for name in PREFERENCES}
    return {name: chosen[name] if chosen[name] in known else known[0] for name, known in PREFERENCES.items()}


def digest(*parts: object) -> str:
    """Return a string that stands for these values."""
    return sha256(repr(parts).encode(errors="backslashreplace")).hexdigest()[:32]
