"""Lists as CSV: page after page, as the list itself is read, up to a limit that the last line tells."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

import psycopg
from flask import Response, stream_with_context
from werkzeug.exceptions import ServiceUnavailable

from qworker.errors import QworkerError
from qworkerd.web import texts
from qworkerd.web.parameters import PAGE_SIZES, Parameters
from qworkerd.web.plain import as_csv, csv_rows
from qworkerd.web.view import View

#: A function that returns the head and the rows of the table of a page.
Table = Callable[[Any], tuple[Sequence[str], Iterable[Sequence[Any]]]]


@dataclass(frozen=True, slots=True)
class Paged:
    """The table of a list that has pages."""

    rows: Table
    #: Returns the parameter `below` of the page after one; None at the end.
    more: Callable[[Any], Any]


#: Maximum number of rows of an export, its duration (seconds), and exports that a process writes at the same time.
MAX_ROWS, MAX_SECONDS, MAX_EXPORTS = 10_000, 30.0, 2
_exports = threading.BoundedSemaphore(MAX_EXPORTS)


def table_of(view: View, name: str, read: Callable[[View], Any], table: Table | Paged | None) -> Response:
    """Answer with the table of a page as CSV; read: returns the data of the page for a view."""
    if isinstance(table, Paged):
        return _all_pages(view, name, read, table)
    assert table is not None  # noqa: S101
    return _named(Response(_bytes(as_csv(*table(read(view)))), mimetype="text/csv"), name)


def _all_pages(view: View, name: str, read: Callable[[View], Any], table: Paged) -> Response:
    """Answer with the rows of a list from the page that was asked for on.

    Each page is read by itself, with the limits of the list: between them no connection is held.
    """
    if not _exports.acquire(blocking=False):
        raise ServiceUnavailable(texts.refusals.exports_busy(MAX_EXPORTS))
    with ExitStack() as stack:
        stack.callback(_exports.release)
        # The first page is read at once, so that an error is an answer with its status.
        first = read(_page(view, {}))
        held = stack.pop_all()
    answer = Response(stream_with_context(_lines(view, first, read, table, held)), mimetype="text/csv")
    # A generator that was never begun does not end, either.
    answer.call_on_close(held.close)
    return _named(answer, name)


def _lines(view: View, data: Any, read: Callable[[View], Any], table: Paged, held: ExitStack) -> Iterator[bytes]:
    with held:
        yield from _rows(view, data, read, table)


def _rows(view: View, data: Any, read: Callable[[View], Any], table: Paged) -> Iterator[bytes]:
    head, rows = table.rows(data)
    left, until = MAX_ROWS, monotonic() + MAX_SECONDS
    yield _bytes(as_csv(head, ()))
    while True:
        found = list(rows)
        yield _bytes(csv_rows(found[:left]))
        cursor, cut = table.more(data), len(found) > left
        left -= len(found)
        if cursor is None and not cut:
            return
        if cut or left <= 0:
            reason = texts.refusals.too_many_rows(MAX_ROWS)
        elif monotonic() > until:
            reason = texts.refusals.too_long_export(MAX_SECONDS)
        else:
            try:
                data = read(_page(view, {"below": str(cursor)}))
                rows = table.rows(data)[1]
                continue
            except (psycopg.Error, QworkerError):
                reason = texts.refusals.NOT_ANSWERED
        yield _bytes(csv_rows([(texts.refusals.cut(reason), *[None] * (len(head) - 1))]))
        return


def _page(view: View, changes: Mapping[str, str]) -> View:
    """Return a view of the same list with the most rows of a page, from another row on."""
    return replace(view, parameters=Parameters({**view.parameters.values, "size": str(PAGE_SIZES[-1]), **changes}))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _named(answer: Response, name: str) -> Response:
    answer.headers["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    return answer
