"""The screens above the tabs: the details of a row, a line to write into, and the help."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from qworkerd.top.actions import job_of
from qworkerd.top.bars import LineBar
from qworkerd.top.facts import Fact
from qworkerd.top.facts import lines as fact_lines
from qworkerd.top.pane import LinePane

#: The keys, by what they are for.
HELP: Sequence[tuple[str, Sequence[tuple[str, str]]]] = (
    ("Move", (
        ("1 … 7", "a tab"),
        ("h l ← →", "the tab before, the next one"),
        ("j k ↓ ↑", "the next row, the one before"),
        ("g G", "the first row, the last one"),
        ("Ctrl-D Ctrl-U", "a page down, up"),
        ("Enter", "everything about the row; the jobs of a group of errors"),
        ("Esc", "back: close, remove the selection or the filter"),
        ("Mouse", "click a tab or a row, twice to open it, beside a box to close it; the wheel scrolls"),
    )),
    ("Choose", (
        ("/", "filter, such as queue:mail error:TimeoutError age:>1h"),
        ("x", "select the row"),
        ("A", "select all rows, or none"),
        ("s", "sort by the next column; a click on a title sorts by it, and a second one reverses the order"),
        ("f", "failures: failed jobs, or groups of errors"),
    )),
    ("Act on the selected rows, or on the one at the cursor; capitals act at once", (
        ("p", "pause the queue, the node or the schedule, or resume it"),
        ("R", "retry failed jobs"),
        ("C", "cancel jobs"),
        ("D", "discard failed jobs"),
        ("S", "the stack of a running job"),
    )),
    ("Program", (
        ("Space", "stop the refresh, and continue"),
        ("t", "dark or light"),
        ("Ctrl-P", "all commands, and more themes"),
        ("?", "this help"),
        ("q Ctrl-C", "end"),
    )),
)  # fmt: skip


class Detail(ModalScreen[None]):
    """A title and facts, which can be scrolled."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter", "dismiss", "Close"),
        Binding("j,down", "scroll('down')", show=False),
        Binding("k,up", "scroll('up')", show=False),
        Binding("ctrl+d,pagedown,space", "scroll('page_down')", show=False),
        Binding("ctrl+u,pageup", "scroll('page_up')", show=False),
        Binding("g,home", "scroll('home')", show=False),
        Binding("G,end", "scroll('end')", show=False),
        Binding("R", "app.act('retry')", "Retry"),
        Binding("C", "app.act('cancel')", "Cancel"),
        Binding("D", "app.act('discard')", "Discard"),
        Binding("S", "app.stack", "Stack"),
    ]

    def __init__(self, title: str, facts: Sequence[Fact], row: Any = None) -> None:
        """The row is that on which keys act; None if there is none."""
        super().__init__()
        self.title_ = title
        self.row = row
        #: Whether the facts change while they are shown.
        self.changes = row is not None and not title.startswith("Stack")
        self._facts = facts

    def renew(self, facts: Sequence[Fact]) -> None:
        """Show other facts."""
        if facts != self._facts:
            self._facts = facts
            self.query_one(LinePane).show(lambda room: fact_lines(facts, room))

    def compose(self) -> ComposeResult:
        """Make the widgets."""
        with Vertical(id="box"):
            yield LineBar(id="detail-title")
            yield LinePane(lambda room: fact_lines(self._facts, room), id="detail")
            yield LineBar(id="detail-keys")

    def on_mount(self) -> None:
        """Show the title and the keys."""
        self.query_one("#detail-title", LineBar).show([(self.title_, "title")])
        keys = "Esc close   R retry  C cancel  D discard  S stack" if job_of(self.row) is not None else "Esc close"
        self.query_one("#detail-keys", LineBar).show([(keys, "dim")])
        self.query_one(LinePane).focus()

    def on_click(self, event: events.Click) -> None:
        """Close with a click beside the box."""
        if self.get_widget_at(*event.screen_offset)[0] is self:
            self.dismiss()

    def report(self, message: str, *, ok: bool) -> None:
        """Show what an action has done."""
        self.query_one("#detail-keys", LineBar).show([(message, "good" if ok else "bad")])

    def action_scroll(self, where: str) -> None:
        """Scroll the facts."""
        getattr(self.query_one(LinePane), f"scroll_{where}")(animate=False)


class Help(Detail):
    """The keys."""

    def __init__(self) -> None:
        facts: list[Fact] = []
        for title, keys in HELP:
            facts += [("", title, "title"), *((key, text, "") for key, text in keys), ("", "", "")]
        super().__init__("Keys", facts[:-1])


class Prompt(ModalScreen[str | None]):
    """A line to write into. The result is its text, or None after Esc."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss", "Cancel")]

    def __init__(self, label: str, value: str = "", check: Callable[[str], str | None] | None = None) -> None:
        """Check returns what is wrong with a text, in up to three lines, or None."""
        super().__init__()
        self._label = label
        self._value = value
        self._check = check

    def compose(self) -> ComposeResult:
        """Make the widgets."""
        with Vertical(id="prompt"):
            yield Static(Content(self._label), id="prompt-label")
            yield Input(self._value, id="prompt-input", compact=True)
            yield Static("", id="prompt-error", markup=False)

    def on_mount(self) -> None:
        """Put the cursor into the line."""
        self.query_one(Input).focus()

    def on_input_changed(self) -> None:
        """Remove the error of an earlier text."""
        self.query_one("#prompt-error", Static).update("")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Return the text if nothing is wrong with it."""
        problem = self._check(event.value) if self._check is not None else None
        if problem is None:
            self.dismiss(event.value)
        else:
            self.query_one("#prompt-error", Static).update(Content(problem))
