"""The context that the processes of a node share."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from qworker import App
from qworker.db.connection import resolve_dsn
from qworker.status import Pause
from qworkerd.config.settings import Settings
from qworkerd.process.environment import Environment
from qworkerd.shared.board import Board
from qworkerd.shared.budget import Budget
from qworkerd.shared.checkpoint import Checkpoint
from qworkerd.shared.counters import Counters
from qworkerd.shared.paused import PausedQueues
from qworkerd.shared.slots import SlotTable
from qworkerd.shared.tally import Tally
from qworkerd.shared.wakeup import WakeupPipe
from qworkerd.shared.watermarks import Watermarks


@dataclass(frozen=True, slots=True)
class NodeContext:
    """The context, created by the command before the first fork and inherited by all children."""

    app: App
    settings: Settings
    #: The DSN, as the application or the settings define it.
    source: str | Callable[[], str] | None
    table: SlotTable
    budget: Budget
    watermarks: Watermarks
    paused: PausedQueues
    tally: Tally
    #: What is counted by name: log events, reconnects, maintenance tasks.
    counters: Counters
    #: The names of the tasks, sorted. A slot refers to a task by its index here.
    tasks: tuple[str, ...]
    #: Which of these counts are in the database.
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    #: What the scheduler knows of the cluster, as JSON, for the exporter.
    board: Board = field(default_factory=Board)
    #: Since when, by whom and why the node is paused, as JSON; empty if it is not.
    pause_record: Board = field(default_factory=Board)
    #: Idle workers wait on this pipe.
    worker_wakeup: WakeupPipe = field(default_factory=WakeupPipe)
    #: The scheduler waits on this pipe, which is written to when a slot is marked dead or a worker becomes idle.
    scheduler_wakeup: WakeupPipe = field(default_factory=WakeupPipe)
    #: The environment that libpq reads, as it was before the first fork.
    environment: Environment = field(default_factory=Environment)

    @property
    def dsn(self) -> str:
        """The DSN, resolved anew for each connection: credentials may have been rotated."""
        return self._pinned(self.source)

    @property
    def direct_dsn(self) -> str:
        """The scheduler's DSN, which may bypass a pooler."""
        return self._pinned(self.settings.direct_dsn or self.source)

    def _pinned(self, source: str | Callable[[], str] | None) -> str:
        given = source() if callable(source) else source
        return self.environment.pin(resolve_dsn(given) if given else "")

    @property
    def statement_timeout(self) -> float:
        """The client-side limit of a statement (seconds).

        It ends before the supervisor considers a process with an unresponsive server stalled and kills it, which would
        count as an attempt of the job.
        """
        return min(30.0, self.settings.stall_timeout / 2)

    def keep_pause(self, pause: Pause | None) -> None:
        """Store why the node is paused, for when it registers again; None if it is not."""
        self.pause_record.write(json.dumps([pause.at.isoformat(), pause.by, pause.reason]) if pause else "")

    def kept_pause(self) -> Pause | None:
        """Return why the node is paused; None if it is not."""
        if not self.paused.node or not (text := self.pause_record.read()):
            return None
        at, by, reason = json.loads(text)
        return Pause(datetime.fromisoformat(at), by, reason)

    def reconnected(self, role: str) -> None:
        """Count a connection that was lost and made again."""
        self.counters.add(f"reconnected {role}")

    @property
    def hooks(self) -> list[str]:
        """The tasks that have a failure hook."""
        return [name for name in self.tasks if self.app.tasks[name].hook is not None]

    def task_name(self, number: int) -> str:
        """Return the name of a task by its number in a slot."""
        return self.tasks[number] if number < len(self.tasks) else "unknown"
