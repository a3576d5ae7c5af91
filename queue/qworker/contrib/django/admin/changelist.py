"""The list of jobs: pages by id instead of numbers, and a count that ends at a thousand."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib import messages
from django.contrib.admin.views.main import ChangeList
from django.db import OperationalError, connections, transaction
from django.db.models import TextField
from django.db.models.fields.json import KeyTextTransform, KeyTransform
from django.db.models.functions import Cast, Left
from psycopg.errors import QueryCanceled

from qworker.contrib.django.admin.base import parse_id

#: Jobs are counted, and selected across pages, up to this number.
MAX_COUNT = 1_000
#: Seconds that the statements of a page may take.
TIMEOUT = 5
#: The parameters of a page: jobs with lower, or with higher ids.
BELOW, ABOVE = "below", "above"
#: What may be large, and is not in the list.
LARGE = ("args", "result", "progress", "meta", "errors")


class JobList(ChangeList):
    """A page of jobs, the newest first."""

    def __init__(self, request: Any, *args: Any, **options: Any) -> None:
        self.below, self.above = (parse_id(request.GET.get(name)) for name in (BELOW, ABOVE))
        super().__init__(request, *args, **options)
        self.title = "Jobs"

    def get_queryset(self, request: Any, *args: Any, **options: Any) -> Any:
        """Return the jobs of all pages; links to other filters lead to the first page."""
        for name in (BELOW, ABOVE):
            self.params.pop(name, None)
            getattr(self, "filter_params", {}).pop(name, None)  # from Django 5.0 on
        return super().get_queryset(request, *args, **options)

    def get_results(self, request: Any) -> None:
        """Read one page, and count up to MAX_COUNT."""
        size = self.list_per_page
        rows: list[Any] = []
        count = 0
        try:
            with limited(self.queryset.db):
                rows = self._page(size + 1)
                count = self._count(len(rows), size)
        except OperationalError as error:
            if not isinstance(error.__cause__, QueryCanceled):
                raise
            messages.warning(
                request,
                f"The search took longer than {TIMEOUT} seconds and was ended: choose a state, or a later date.",
            )
        more, rows = len(rows) > size, rows[:size]
        if self.above is not None:
            rows.reverse()
        self.result_list = rows
        self.result_count = min(count, MAX_COUNT)
        self.more_than_counted = count > MAX_COUNT
        older = more if self.above is None else True
        newer = more if self.above is not None else self.below is not None
        self.older = self.get_query_string({BELOW: rows[-1].id}) if rows and older else None
        self.newer = self.get_query_string({ABOVE: rows[0].id}) if rows and newer else None
        self.first = self.get_query_string() if self.below or self.above else None
        self.multi_page = more
        self.can_show_all = False
        # Equal counts: there is no number of all jobs to show.
        self.show_full_result_count, self.full_result_count = False, self.result_count
        self.show_admin_actions = True
        self.paginator = None

    def _page(self, limit: int) -> list[Any]:
        last = KeyTransform("-1", "errors")
        found = self.queryset.defer(*LARGE).annotate(
            error_type=KeyTextTransform("type", last),
            error_message=Left(Cast(KeyTextTransform("message", last), TextField()), 200),
        )
        if self.above is not None:
            return list(found.filter(id__gt=self.above).order_by("id")[:limit])
        return list((found if self.below is None else found.filter(id__lt=self.below)).order_by("-id")[:limit])

    def _count(self, read: int, size: int) -> int:
        if self.below is None and self.above is None and read <= size:
            return read
        return int(self.queryset.order_by()[: MAX_COUNT + 1].count())


@contextmanager
def limited(alias: str) -> Iterator[None]:
    """End each statement after TIMEOUT, as an OperationalError that leaves the transaction usable."""
    with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", [f"{TIMEOUT}s"])
        yield
        cursor.execute("SET LOCAL statement_timeout TO DEFAULT")
