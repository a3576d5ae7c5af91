"""What the processes of one node share."""

from dataclasses import dataclass, field

from qworker import App
from qworkerd.bell import Bell
from qworkerd.budget import Budget
from qworkerd.settings import Settings
from qworkerd.slots import SlotTable


@dataclass(frozen=True, slots=True)
class Node:
    """Made once by the command, before the first fork; every child has it by inheritance."""

    app: App
    settings: Settings
    #: Connection string, resolved from the settings, the application and the environment at each connect.
    dsn: str
    table: SlotTable
    budget: Budget
    #: The names of the tasks, sorted: a slot names a task by its place here.
    tasks: tuple[str, ...]
    #: Idle workers wait on it.
    wake: Bell = field(default_factory=Bell)
    #: The scheduler waits on it: there is a grave, or a worker went idle.
    poke: Bell = field(default_factory=Bell)

    def task_name(self, number: int) -> str:
        """Return the task a slot's entry names."""
        return self.tasks[number] if number < len(self.tasks) else "unknown"
