"""The keys of the program, and the commands of its palette, each with the name of an action."""

from textual.binding import Binding

from qworkerd.top.reading import Tab

#: The keys.
KEYS = (
    *(Binding(str(number), f"tab('{tab}')", tab.title(), show=False) for number, tab in enumerate(Tab, 1)),
    Binding("h,left", "step(-1)", "Previous tab", show=False),
    Binding("l,right,tab", "step(1)", "Next tab", show=False),
    Binding("slash", "filter", "Filter"),
    Binding("x", "select", "Select"),
    Binding("A", "select_all", "Select all"),
    Binding("enter", "open", "Details"),
    Binding("s", "sort", "Sort"),
    Binding("f", "failures", "Jobs or groups"),
    Binding("p", "pause", "Pause or resume"),
    Binding("R", "act('retry')", "Retry"),
    Binding("C", "act('cancel')", "Cancel"),
    Binding("D", "act('discard')", "Discard"),
    Binding("S", "stack", "Stack"),
    Binding("space", "freeze", "Stop the refresh"),
    Binding("t", "theme_toggle", "Dark or light", show=False),
    Binding("question_mark", "help", "Help"),
    Binding("escape", "back", "Back", show=False),
    Binding("q", "quit", "End"),
    Binding("ctrl+c", "quit", "End", show=False, priority=True),
    Binding("ctrl+z", "suspend_process", "Suspend", show=False, priority=True),
)

#: The commands: their names, what they do, and their actions.
PALETTE = (
    *((f"Tab {tab.title()}", f"Go to the tab (key {number})", f"tab('{tab}')") for number, tab in enumerate(Tab, 1)),
    ("Filter", "Filter the rows (key /)", "filter"),
    ("Select all", "Select all rows, or none (key A)", "select_all"),
    ("Pause or resume", "Pause queues, nodes or schedules (key p)", "pause"),
    ("Retry", "Retry the failed jobs (key R)", "act('retry')"),
    ("Cancel", "Cancel the jobs (key C)", "act('cancel')"),
    ("Discard", "Discard the failed jobs (key D)", "act('discard')"),
    ("Stack", "Show the stack of the running job (key S)", "stack"),
)
