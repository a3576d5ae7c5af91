"""A widget that shows lines of styled text, such as the overview."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from qworkerd.top.overview import Line


class LinePane(ScrollView):
    """Lines that are made anew whenever the width or what they show has changed."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "line--title", "line--plain", "line--dim", "line--good", "line--warning", "line--bad",
    }  # fmt: skip
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "scroll_down", "Down", show=False),
        Binding("k,up", "scroll_up", "Up", show=False),
    ]

    def __init__(self, make: Callable[[int], Sequence[Line]] | None = None, **options: Any) -> None:
        """The function returns the lines for a width."""
        super().__init__(**options)
        self._make = make
        self._lines: Sequence[Line] = ()

    @property
    def room(self) -> int:
        """The columns beside the scrollbar."""
        found: int = self.scrollable_content_region.width
        return found

    def show(self, make: Callable[[int], Sequence[Line]]) -> None:
        """Show other lines."""
        self._make = make
        self._update()

    def on_resize(self) -> None:
        """Make the lines for the new width."""
        self._update()

    def render_line(self, y: int) -> Strip:
        """Draw one line."""
        index = y + self.scroll_offset.y
        line = self._lines[index] if index < len(self._lines) else []
        segments = [Segment(text, self.get_component_rich_style(f"line--{style or 'plain'}")) for text, style in line]
        return Strip(segments).adjust_cell_length(self.room, self.get_component_rich_style("line--plain"))

    def _update(self) -> None:
        if self._make is not None and self.room > 0:
            self._lines = self._make(self.room)
            self.virtual_size = Size(self.room, len(self._lines))
            self.refresh()
