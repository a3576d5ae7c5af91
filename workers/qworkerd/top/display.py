"""What the program shows: tabs, what is read for them again and again, and the lines around them."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any

from textual.app import App, ComposeResult, ScreenStackError
from textual.css.query import NoMatches
from textual.screen import Screen
from textual.widgets import ContentSwitcher

from qworkerd.top import around, overview
from qworkerd.top.actions import Outcome
from qworkerd.top.bars import LineBar, TabBar
from qworkerd.top.cells import harmless
from qworkerd.top.messages import Received
from qworkerd.top.pane import LinePane
from qworkerd.top.reading import Frame, Query, Reader, Tab, view_of
from qworkerd.top.refresh import Refresh
from qworkerd.top.screens import Detail
from qworkerd.top.tab_filters import TabFilters
from qworkerd.top.table import RowTable

#: How long a message is shown (seconds).
MESSAGE_TIME = 8.0
#: The themes that `t` alternates.
THEMES = ("textual-dark", "textual-light")


class Display(App[int]):
    """Shows a cluster."""

    CSS_PATH = "top.tcss"
    TITLE = "qworker top"

    def __init__(self, reader: Reader, where: str, tab: Tab, wanted: str, interval: float) -> None:
        """Where names the database; wanted is the filter of the first tab."""
        super().__init__()
        self.tab = tab
        self.frame: Frame | None = None
        self._where = where
        self._reading = Refresh(reader, interval, lambda query, found: self.post_message(Received(query, found)))
        self._wanted = TabFilters(tab, wanted)
        self._message: tuple[float, Outcome] | None = None

    def compose(self) -> ComposeResult:
        """Make the widgets."""
        yield LineBar(id="title")
        yield TabBar(self.tab, id="tabs")
        yield LineBar(id="banner")
        with ContentSwitcher(initial=self.tab.value, id="body"):
            yield LinePane(id=Tab.OVERVIEW.value)
            for tab in Tab:
                if (view := view_of(self._wanted.query(tab))) is not None:
                    yield RowTable(view, id=tab.value)
        yield LineBar(id="status", classes="keep-right")
        yield LineBar(id="keys", classes="keep-right")

    def on_mount(self) -> None:
        """Begin to read."""
        self.theme = THEMES[0]
        with suppress(NotImplementedError, RuntimeError):  # not in the main thread
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.exit)
        self._reading.start()
        self.set_interval(min(0.25, self._reading.interval), self._tick)
        self._show_tab()

    def on_unmount(self) -> None:
        """Have the thread end."""
        self._reading.stop()

    # The refresh

    @property
    def problem(self) -> str | None:
        """Why nothing could be read; None if the last attempt has succeeded."""
        return self._reading.problem

    @property
    def _query(self) -> Query:
        return self._wanted.query(self.tab)

    def _tick(self) -> None:
        if self._reading.due:
            self.read_now()
        with present():
            self._show_banner()
            self._show_status()

    def read_now(self) -> None:
        """Read what the active tab shows, at once."""
        self._reading.request(self._query)

    def on_received(self, message: Received) -> None:
        """Show a frame, or why it could not be read."""
        frame = self._reading.received(message.found)
        with present():
            if frame is not None and message.query == self._query:
                self._show(frame)
            elif frame is not None:
                self.read_now()
            self._show_banner()

    def _show(self, frame: Frame) -> None:
        self.frame = frame
        if (table := self.table) is not None:
            table.show(view_of(frame.query) or table.view, frame.rows, frame.snapshot.at)
        else:
            pane = self._base.query_one(f"#{Tab.OVERVIEW}", LinePane)
            pane.show(lambda room: overview.lines(frame, room, pane.size.height))
        self._show_around()

    def action_freeze(self) -> None:
        """Stop the refresh, or continue it."""
        self._reading.frozen = not self._reading.frozen
        self._show_around()

    # The lines around the tab

    @property
    def _base(self) -> Screen[Any]:
        for screen in self.screen_stack:
            return screen
        raise ScreenStackError("the screens have been removed")

    @property
    def table(self) -> RowTable | None:
        """The table of the active tab; None for the overview."""
        return None if self.tab is Tab.OVERVIEW else self._base.query_one(f"#{self.tab}", RowTable)

    def _show_around(self) -> None:
        title = around.title(self._where, self.frame, frozen=self._reading.frozen)
        self._base.query_one("#title", LineBar).show(*title)
        self._base.query_one(TabBar).show(self.tab, around.badges(self.frame))
        self._base.query_one("#keys", LineBar).show(*around.keys(self.tab))
        self._show_banner()
        self._show_status()

    def _show_banner(self) -> None:
        bar, problem = self._base.query_one("#banner", LineBar), self._reading.banner
        bar.display = problem is not None
        if problem is not None:
            bar.show([(f" {harmless(problem)}", "bad")])

    def _show_status(self) -> None:
        table, query = self.table, self._query
        outcome = self._message[1] if self._message is not None and monotonic() < self._message[0] else None
        note = self.frame.note if self.frame is not None and self.frame.query == query else ""
        position = around.position(table.cursor, len(table.rows), len(table.selected)) if table and table.loaded else []
        self._base.query_one("#status", LineBar).show(around.status(outcome, query.text, note), position)

    def message(self, outcome: Outcome) -> None:
        """Show what an action has done, for a while."""
        self._message = monotonic() + MESSAGE_TIME, outcome
        self._show_status()
        if isinstance(self.screen, Detail):
            self.screen.report(outcome.message, ok=outcome.ok)

    # Tabs

    def action_tab(self, name: str) -> None:
        """Go to a tab."""
        self.tab = Tab(name)
        self._show_tab()
        self.read_now()

    def action_step(self, tabs: int) -> None:
        """Go to the next tab, or to the one before."""
        known = list(Tab)
        self.action_tab(known[(known.index(self.tab) + tabs) % len(known)])

    def on_tab_bar_chosen(self, message: TabBar.Chosen) -> None:
        """Go to the tab that was clicked."""
        self.action_tab(message.tab)

    def _show_tab(self) -> None:
        self._base.query_one("#body", ContentSwitcher).current = self.tab.value
        self._base.query_one(f"#{self.tab}").focus()
        self._show_around()

    def action_theme_toggle(self) -> None:
        """Alternate the dark and the light theme."""
        self.theme = THEMES[self.theme == THEMES[0]]


@contextmanager
def present() -> Iterator[None]:
    """Do nothing at the end, when the widgets have been removed, but not yet all messages handled."""
    with suppress(NoMatches, ScreenStackError):
        yield
