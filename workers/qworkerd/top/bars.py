"""The lines around a tab: the title with the state of the cluster, the tabs, the banner, and the keys."""

from collections.abc import Mapping
from typing import Any, ClassVar

from rich.segment import Segment
from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from qworkerd.log.width import width
from qworkerd.top.overview import Line, cut
from qworkerd.top.reading import Tab


class LineBar(Widget):
    """One line: a part at the left, and one at the right that is left out if there is no room.

    With the class `keep-right` the left part is cut instead.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "bar--title", "bar--plain", "bar--dim", "bar--good", "bar--warning", "bar--bad", "bar--key",
    }  # fmt: skip

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._left: Line = []
        self._right: Line = []

    def show(self, left: Line, right: Line | None = None) -> None:
        """Show other parts."""
        if (left, right or []) != (self._left, self._right):
            self._left, self._right = left, right or []
            self.refresh()

    @property
    def text(self) -> str:
        """What is shown at the left."""
        return "".join(part for part, _ in self._left)

    def render_line(self, y: int) -> Strip:
        """Draw the line."""
        room = self.size.width
        fits = _length(self._left) + _length(self._right) + 2 <= room
        right = self._right if fits or self.has_class("keep-right") else []
        left = cut(self._left, max(0, room - _length(right) - 2 * bool(right)))
        gap = room - _length(left) - _length(right)
        return Strip(
            [
                Segment(text, self.get_component_rich_style(f"bar--{style or 'plain'}"))
                for text, style in ([*left, (" " * gap, ""), *right] if not y else [])
            ]
        ).adjust_cell_length(room, self.get_component_rich_style("bar--plain"))


class TabBar(Widget):
    """The names of the tabs with their keys. If there is no room, only that of the active one is shown in full."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"tab--active", "tab--other", "tab--key", "tab--bad"}

    class Chosen(Message):
        """A tab was clicked."""

        def __init__(self, tab: Tab) -> None:
            super().__init__()
            self.tab = tab

    def __init__(self, active: Tab, **options: Any) -> None:
        super().__init__(**options)
        self.active = active
        self._badges: Mapping[Tab, str] = {}

    def show(self, active: Tab, badges: Mapping[Tab, str]) -> None:
        """Show another tab as active, and other numbers behind the names."""
        if (active, badges) != (self.active, self._badges):
            self.active, self._badges = active, badges
            self.refresh()

    def on_click(self, event: events.Click) -> None:
        """Choose the tab that was clicked."""
        left = 0
        for tab, label in self._labels():
            left += width(label)
            if event.x < left:
                self.post_message(self.Chosen(tab))
                return

    def render_line(self, y: int) -> Strip:
        """Draw the tabs."""
        segments = []
        for tab, label in self._labels() if not y else []:
            style = "tab--active" if tab is self.active else "tab--other"
            name, badge, rest = label, "", ""
            if tab in self._badges and self._badges[tab] in label:
                name, badge, rest = label.rpartition(self._badges[tab])
            segments += [
                Segment(name, self.get_component_rich_style(style)),
                Segment(badge, self.get_component_rich_style(style if tab is self.active else "tab--bad")),
                Segment(rest, self.get_component_rich_style(style)),
            ]
        return Strip(segments).adjust_cell_length(self.size.width, self.get_component_rich_style("tab--other"))

    def _labels(self) -> list[tuple[Tab, str]]:
        for form in (self._full, self._named, self._initials):
            labels = [(tab, form(number, tab)) for number, tab in enumerate(Tab, 1)]
            if sum(width(label) for _, label in labels) <= self.size.width:
                return labels
        return [(tab, self._initials(number, tab)) for number, tab in enumerate(Tab, 1)]

    def _full(self, number: int, tab: Tab) -> str:
        badge = f" {self._badges[tab]}" if tab in self._badges else ""
        return f" {number} {tab.value.title()}{badge} "

    def _named(self, number: int, tab: Tab) -> str:
        return f" {number} {tab.value.title()} "

    def _initials(self, number: int, tab: Tab) -> str:
        return f" {number} {tab.value.title()} " if tab is self.active else f" {number} "


def _length(line: Line) -> int:
    return sum(width(text) for text, _ in line)
