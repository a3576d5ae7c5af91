"""The program on a terminal: what its keys do with what it shows."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, ClassVar

from textual.app import SystemCommand
from textual.binding import BindingType
from textual.screen import Screen

from qworkerd.top.actions import Actions, Outcome
from qworkerd.top.bindings import KEYS, PALETTE
from qworkerd.top.commands import Commands
from qworkerd.top.display import Display, present
from qworkerd.top.messages import Filtered, Finished, Opened
from qworkerd.top.reading import Frame, Reader, Tab
from qworkerd.top.refresh import INTERVAL
from qworkerd.top.screens import Detail, Help, Prompt
from qworkerd.top.tab_filters import problem_of


class TopApp(Display):
    """Shows a cluster, and acts on it."""

    BINDINGS: ClassVar[list[BindingType]] = [*KEYS]

    def __init__(
        self, reader: Reader, actions: Actions, where: str, *, tab: Tab = Tab.OVERVIEW, wanted: str = "",
        interval: float = INTERVAL,
    ) -> None:  # fmt: skip
        """Where names the database; wanted is the filter of the first tab."""
        super().__init__(reader, where, tab, wanted, interval)
        self._actions = actions
        self._commands = Commands(self, reader.admin, actions, self.message)

    def on_unmount(self) -> None:
        """Have the threads of the actions end."""
        self._actions.close()

    # Rows

    def action_select(self) -> None:
        """Select the row at the cursor, or deselect it."""
        if self.table is not None:
            self.table.toggle()
            self._show_status()

    def action_select_all(self) -> None:
        """Select all rows, or none."""
        if self.table is not None:
            self.table.toggle_all()
            self._show_status()

    def action_sort(self) -> None:
        """Sort by the next column."""
        if self.table is not None:
            self.message(Outcome(f"sorted by {self.table.resort()}"))

    def action_failures(self) -> None:
        """Show failed jobs instead of groups of errors, or the other way round."""
        if self.tab is Tab.FAILURES:
            self._wanted.toggle_jobs()
            self.read_now()

    async def action_back(self) -> None:
        """Remove the selection, or the filter, or go back to the groups of errors."""
        if self.table is not None and self.table.selected:
            self.table.deselect()
        elif self._wanted.remove(self.tab):
            self._read_others()
        self._show_status()

    # Filters

    def action_filter(self) -> None:
        """Ask for a filter."""
        fields = None if self.table is None else self.table.view.fields
        if self.table is None or (fields is not None and not fields):
            self.message(Outcome(f"the tab {self.tab.title()} has no filter", ok=False))
            return
        keys = "as for `qworker jobs list`" if fields is None else ", ".join(f"{key}:" for key in fields)
        self.push_screen(Prompt(f"Filter {self.tab} ({keys})", self._query.text, self._problem_of), self._filter_by)

    def _read_others(self) -> None:
        """Read the rows of another filter."""
        if self.table is not None:
            self.table.start_anew()
        self.read_now()

    def _problem_of(self, text: str) -> str | None:
        return problem_of(text, None if self.table is None else self.table.view.fields, max(20, self.size.width - 6))

    def _filter_by(self, text: str | None) -> None:
        if text is None:
            return
        self._wanted.set(self.tab, text)
        self._read_others()
        self._show_status()

    def on_filtered(self, message: Filtered) -> None:
        """Show the failed jobs of a group of errors."""
        self._wanted.set_stored(Tab.FAILURES, message.text)
        self._read_others()

    # Details and actions

    def _show(self, frame: Frame) -> None:
        super()._show(frame)
        self._renew_details()

    def _renew_details(self) -> None:
        if isinstance(self.screen, Detail) and self.screen.row is not None and self.screen.changes:
            row, table = self.screen.row, self.table
            if table is not None and isinstance(row, type(table.current)):
                key = table.view.key
                row = next((one for one in table.rows if key(one) == key(row)), row)
            self._commands.renew(row)

    def on_row_table_opened(self) -> None:
        """Open the row that was double-clicked."""
        self.action_open()

    def action_open(self) -> None:
        """Show everything about the row at the cursor; the jobs of a group of errors."""
        if self.table is not None and self.table.current is not None:
            self._commands.open(self.table.current)

    def on_opened(self, message: Opened) -> None:
        """Show details, instead of those that are shown."""
        shown = self.screen if isinstance(self.screen, Detail) else None
        if message.renewed:
            if shown is not None and shown.title_ == message.title:
                shown.renew(message.facts)
        elif not isinstance(self.screen, Prompt):
            if shown is not None:
                self.pop_screen()
            self.push_screen(Detail(message.title, message.facts, message.row))

    def _subjects(self) -> Sequence[Any]:
        """Return the rows on which a key acts: that of the details, the selected ones, or the one at the cursor."""
        if isinstance(self.screen, Detail):
            return [] if self.screen.row is None else [self.screen.row]
        return [] if self.table is None else self.table.chosen

    def action_act(self, verb: str) -> None:
        """Retry, cancel or discard."""
        self._commands.change(verb, self._subjects())

    def action_pause(self) -> None:
        """Pause queues or schedules, or resume them."""
        self._commands.pause(self._subjects())

    def action_stack(self) -> None:
        """Show the stacks of the running job."""
        self._commands.stack(self._subjects())

    def on_finished(self, message: Finished) -> None:
        """Show what an action has done, and what has changed."""
        with present():
            self.message(message.outcome)
            self.read_now()

    # Help

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(Help())

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Return the commands of the palette."""
        yield from super().get_system_commands(screen)
        for name, text, action in PALETTE:
            yield SystemCommand(name, text, partial(self.run_action, action))
