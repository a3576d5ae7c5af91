"""A table that draws only the rows in sight, and keeps its cursor and selection over a refresh."""

from collections.abc import Hashable, Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import Any, ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from qworkerd.top.cells import fit
from qworkerd.top.columns import GAP, natural_widths, widths
from qworkerd.top.plain import ordered
from qworkerd.top.view import View

#: Columns of the mark of selected rows.
MARK = 2
#: Time for which no row is at the cursor after its row has disappeared (seconds).
GONE_TIME = 1.2


class RowTable(ScrollView):
    """Rows of a view. The first line is the head; a click on a title sorts by it."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "row--head", "row--plain", "row--dim", "row--good", "row--warning", "row--bad", "row--cursor", "row--selected",
    }  # fmt: skip
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "move(1)", "Down", show=False),
        Binding("k,up", "move(-1)", "Up", show=False),
        Binding("g,home", "move_to(0)", "First", show=False),
        Binding("G,end", "move_to(-1)", "Last", show=False),
        Binding("ctrl+d,pagedown", "page(1)", "Page down", show=False),
        Binding("ctrl+u,pageup", "page(-1)", "Page up", show=False),
    ]

    cursor = reactive(0)

    class Opened(Message):
        """A row was chosen by Enter or a double click."""

    def __init__(self, view: View[Any], **options: Any) -> None:
        super().__init__(**options)
        self.view = view
        #: The rows in the order in which they are shown.
        self.rows: list[Any] = []
        self.selected: set[Hashable] = set()
        self.sort: int | None = view.sort
        self.reverse = False
        self.loaded = False
        self._read: Sequence[Any] = ()
        self._now = datetime.now(UTC)
        self._key: Hashable = None
        self._natural: list[int] = []
        self._layout = [0] * len(view.columns)
        self._gone_until = 0.0
        self._starts_anew = False
        self._follows = True

    @property
    def room(self) -> int:
        """The columns beside the scrollbar."""
        found: int = self.scrollable_content_region.width
        return found

    @property
    def current(self) -> Any:
        """The row at the cursor; None if there are no rows."""
        return self.rows[self.cursor] if 0 <= self.cursor < len(self.rows) else None

    @property
    def chosen(self) -> list[Any]:
        """The selected rows, or the one at the cursor if none is selected; see `gone`."""
        found = [row for row in self.rows if self.view.key(row) in self.selected]
        return found or ([] if self.current is None or self.gone else [self.current])

    @property
    def gone(self) -> bool:
        """Whether the row at the cursor has just disappeared: a key that was meant for it must not hit the next one."""
        return monotonic() < self._gone_until

    def show(self, view: View[Any], rows: Sequence[Any], now: datetime) -> None:
        """Replace the rows; the cursor and the selection stay with the rows that still exist."""
        if view is not self.view:
            self.view, self.sort, self.reverse, self._natural = view, view.sort, False, []
            self._layout, self._gone_until = [0] * len(view.columns), 0.0
            self.selected.clear()
            self._key = None
        if self._starts_anew:
            self._starts_anew, self._key, self._gone_until = False, None, 0.0
            self.cursor = 0
            self._follow()
            self._key = None  # the watcher has set it to a row of before
        self._read, self._now, self.loaded = rows, now, True
        self._arrange()

    def start_anew(self) -> None:
        """Put the cursor on the first of the next rows: another filter is wanted."""
        self._starts_anew = True

    def resort(self, index: int | None = None) -> str:
        """Sort by a column, or by the next one; the same one again reverses the order. Return its title."""
        sortable = [each for each, column in enumerate(self.view.columns) if column.key and self._visible(each)]
        if index is None:
            after = [each for each in sortable if self.sort is None or each > self.sort]
            self.sort, self.reverse = (after or sortable)[0], False
        elif index in sortable:
            self.reverse = index == self.sort and not self.reverse
            self.sort = index
        self._arrange()
        return "" if self.sort is None else self.view.columns[self.sort].title

    def toggle(self) -> None:
        """Select the row at the cursor, or remove it from the selection, and move to the next one."""
        if self.current is None:
            return
        self.selected ^= {self.view.key(self.current)}
        self.action_move(1)
        self.refresh()

    def deselect(self) -> None:
        """Select no row."""
        self.selected.clear()
        self.refresh()

    def toggle_all(self) -> None:
        """Select all rows, or none if all are selected."""
        keys = {self.view.key(row) for row in self.rows}
        self.selected = set() if keys == self.selected else keys
        self.refresh()

    def action_move(self, lines: int) -> None:
        """Move the cursor."""
        self._gone_until = 0.0
        self.cursor = min(max(0, self.cursor + lines), max(0, len(self.rows) - 1))

    def action_move_to(self, index: int) -> None:
        """Move the cursor to the first or the last row."""
        self._gone_until = 0.0
        self.cursor = max(0, len(self.rows) - 1) if index else 0

    def action_page(self, pages: int) -> None:
        """Move the cursor by a page."""
        self.action_move(pages * max(1, self.size.height - 2))

    def watch_cursor(self) -> None:
        """Keep the cursor in sight, and remember its row."""
        row = self.current
        if row is not None:
            self._key = self.view.key(row)
        if self._follows:
            self._follow()
        self.refresh()

    def on_resize(self) -> None:
        """Fit the columns into the new width."""
        self._fit()
        self._follow()

    def on_click(self, event: events.Click) -> None:
        """Move the cursor to a row; sort by a title."""
        offset = event.get_content_offset(self)
        if offset is None:
            return
        if offset.y == 0:
            left = MARK
            for index, size in enumerate(self._layout):
                if size and left <= offset.x < left + size + GAP:
                    self.resort(index)
                left += size + GAP if size else 0
            return
        index = offset.y - 1 + self.scroll_offset.y
        if index < len(self.rows):
            self._gone_until = 0.0
            self.cursor = index
            if event.chain > 1:
                self.post_message(self.Opened())

    def render_line(self, y: int) -> Strip:
        """Draw one line."""
        if y == 0:
            return self._head()
        index = y - 1 + self.scroll_offset.y
        if index >= len(self.rows):
            empty = self.view.empty if self.loaded and not self.rows and y == 1 + (self.size.height > 3) else ""  # noqa: PLR2004
            return self._strip([(fit(f"  {empty}", self.room), "row--dim")])
        row = self.rows[index]
        selected = self.view.key(row) in self.selected
        cursor = index == self.cursor and not self.gone
        base = "row--cursor" if cursor else "row--selected" if selected else ""
        cells = [("● " if selected else "  ", "row--good")]
        for column, size in zip(self.view.columns, self._layout, strict=True):
            if size:
                text = fit(column.text(row, self._now), size, right=column.right)
                cells.append((text + " " * GAP, f"row--{column.style(row) or 'plain'}"))
        return self._strip(cells, base)

    def _head(self) -> Strip:
        cells = "  "
        for index, (column, size) in enumerate(zip(self.view.columns, self._layout, strict=True)):
            if size:
                mark = ("▲" if column.descending == self.reverse else "▼") if index == self.sort else ""
                cells += fit(f"{column.title}{mark}", size, right=column.right) + " " * GAP
        return self._strip([(cells, "row--head")], "row--head")

    def _strip(self, cells: Sequence[tuple[str, str]], base: str = "") -> Strip:
        """Return a line; the base is the style of the whole row, of which colors of cells replace the foreground."""
        ground = self.get_component_rich_style(base or "row--plain")
        segments = [Segment(text, ground + self._foreground(style, base)) for text, style in cells]
        return Strip(segments).adjust_cell_length(self.room, ground)

    def _foreground(self, style: str, base: str) -> Style:
        if style in ("row--plain", base):
            return Style()
        found: Style = self.get_component_rich_style(style)
        return Style(color=found.color)

    def _arrange(self) -> None:
        """Sort the rows, and find the one at the cursor again."""
        position = self.cursor
        # Rows that come and go must not take back what the wheel has scrolled.
        seen = self._in_sight(position)
        self.rows = ordered(self.view.columns, self._read, self.sort, reverse=self.reverse)
        keys = [self.view.key(row) for row in self.rows]
        self.selected &= set(keys)
        if self._key is not None and self._key in keys:
            position = keys.index(self._key)
        elif self._key is not None and keys:
            self._gone_until = monotonic() + GONE_TIME
            self.set_timer(GONE_TIME, self.refresh)
        self.virtual_size = Size(self.room, len(self.rows) + 1)
        self._fit()
        position = min(max(0, position), max(0, len(keys) - 1))
        if position == self.cursor:
            self._key = keys[position] if keys else None
            self.refresh()
        else:
            self._follows = seen
            self.cursor = position
            self._follows = True

    def _in_sight(self, index: int) -> bool:
        top = self.scroll_offset.y
        return top <= index < top + max(1, self.size.height - 1)

    def _fit(self) -> None:
        """Compute the widths from the rows in sight; columns never become narrower, so that nothing jumps."""
        first = self.scroll_offset.y
        seen = self.rows[first : first + max(1, self.size.height)]
        texts = [[column.text(row, self._now) for column in self.view.columns] for row in seen]
        natural = natural_widths(self.view.columns, texts)
        for index, column in enumerate(self.view.columns):
            if column.key:
                natural[index] = max(natural[index], len(column.title) + (index == self.sort))
            if texts and column.rank and not any(text[index] for text in texts):
                natural[index] = 0  # such as the reasons of pauses, if no queue is paused
        if len(self._natural) == len(natural):
            natural = [max(pair) for pair in zip(natural, self._natural, strict=True)]
        if texts:
            self._natural = natural
        self._layout = widths(self.view.columns, natural, self.room - MARK)
        self.refresh()

    def _visible(self, index: int) -> bool:
        return index < len(self._layout) and self._layout[index] > 0

    def _follow(self) -> None:
        height = max(1, self.size.height - 1)
        top = self.scroll_offset.y
        if self._in_sight(self.cursor):
            return
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False, force=True)
        else:
            self.scroll_to(y=self.cursor - height + 1, animate=False, force=True)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Fit the columns to the rows that have come into sight."""
        super().watch_scroll_y(old_value, new_value)
        if round(old_value) != round(new_value):
            self._fit()
