"""The filters of the tabs: what each tab is to show."""

from collections.abc import Collection

from qworker.filters import Filter, InvalidFilter, parse, parse_stored
from qworker.filters.rows import check
from qworkerd.top.cells import harmless
from qworkerd.top.reading import Query, Tab


class TabFilters:
    """The filter of each tab, and whether failures are shown as jobs instead of groups."""

    def __init__(self, tab: Tab, text: str) -> None:
        """Text is the filter of the first tab."""
        self._wanted: dict[Tab, tuple[Filter, str]] = {tab: (parse(text), text)} if text else {}
        self._jobs = bool(text)

    def query(self, tab: Tab) -> Query:
        """Return what a tab is to show."""
        wanted, text = self._wanted.get(tab, (Filter(), ""))
        return Query(tab, wanted, text, jobs=self._jobs)

    def set(self, tab: Tab, text: str) -> None:
        """Filter a tab; an empty text removes its filter."""
        self._wanted.pop(tab, None)
        if text.strip():
            self._wanted[tab] = (parse(text), text)
            self._jobs = self._jobs or tab is Tab.FAILURES

    def set_stored(self, tab: Tab, text: str) -> None:
        """Filter a tab of jobs by a text that was made from a filter."""
        self._wanted[tab], self._jobs = (parse_stored(text), text), True

    def toggle_jobs(self) -> None:
        """Show failures as jobs instead of groups, or the other way round, without a filter."""
        self._jobs = not self._jobs
        self._wanted.pop(Tab.FAILURES, None)

    def remove(self, tab: Tab) -> bool:
        """Remove the filter of a tab; failures become groups. Return whether the tab is to be read again."""
        found = self._wanted.pop(tab, None)
        if tab is Tab.FAILURES:
            self._jobs = False
        return found is not None or tab is Tab.FAILURES


def problem_of(text: str, fields: Collection[str] | None, room: int) -> str | None:
    """Return what is wrong with a filter, in lines not wider than `room`; fields are the keys that the rows have."""
    try:
        wanted = parse(text)
        if fields is not None:
            check(wanted, text, fields)
    except InvalidFilter as error:
        return f"{error.pointer(room)}\n{harmless(error)}"
    return None
