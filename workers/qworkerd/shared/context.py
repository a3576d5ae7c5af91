"""What the processes of one node share."""

from collections.abc import Callable
from dataclasses import dataclass, field

from qworker import App
from qworker.db.connection import resolve_dsn
from qworkerd.config.settings import Settings
from qworkerd.shared.budget import Budget
from qworkerd.shared.slots import SlotTable
from qworkerd.shared.wakeup import WakeupPipe
from qworkerd.shared.watermarks import Watermarks


@dataclass(frozen=True, slots=True)
class NodeContext:
    """Made once by the command, before the first fork; every child has it by inheritance."""

    app: App
    settings: Settings
    #: Where the database is, as the application or the settings have it.
    source: str | Callable[[], str] | None
    table: SlotTable
    budget: Budget
    watermarks: Watermarks
    #: The names of the tasks, sorted: a slot names a task by its place here.
    tasks: tuple[str, ...]
    #: Idle workers wait on it.
    worker_wakeup: WakeupPipe = field(default_factory=WakeupPipe)
    #: The scheduler waits on it: there is a grave, or a worker went idle.
    scheduler_wakeup: WakeupPipe = field(default_factory=WakeupPipe)

    @property
    def dsn(self) -> str:
        """The connection string, found out anew for each connect: credentials may have been rotated."""
        return resolve_dsn(self.source)

    @property
    def direct_dsn(self) -> str:
        """The same for the scheduler, which may have a way past a pooler."""
        return resolve_dsn(self.settings.direct_dsn or self.source)

    @property
    def statement_timeout(self) -> float:
        """How long a statement of a process may take (seconds).

        A silent server is left before the supervisor takes the process for stuck, which costs its job an attempt.
        """
        return min(30.0, self.settings.stall_timeout / 2)

    @property
    def hooks(self) -> list[str]:
        """The tasks that want to hear of a job that has failed for good."""
        return [name for name in self.tasks if self.app.tasks[name].hook is not None]

    def task_name(self, number: int) -> str:
        """Return the task a slot's entry names."""
        return self.tasks[number] if number < len(self.tasks) else "unknown"
