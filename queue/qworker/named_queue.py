"""A queue by its name: how many jobs it holds; pause and resume it."""

from dataclasses import dataclass, field

from qworker.admin import Admin
from qworker.job import WAITING, JobState
from qworker.queues import QueuePause


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue by its name."""

    name: str
    admin: Admin = field(repr=False)

    def size(self, state: JobState | str | None = None) -> int:
        """Return the number of jobs in the given state; by default of those available, scheduled or blocked."""
        return self.admin.size(self.name, *(WAITING if state is None else [JobState(state)]))

    def pause(self, *, reason: str | None = None, by: str | None = None) -> bool:
        """Let no node claim jobs of the queue until it is resumed; return False if it was already paused.

        Jobs that run finish, and jobs can still be enqueued. The change commits at once, and takes effect within 1.5 s
        on each node whose scheduler reaches the database. `by` is the actor by default, see `acting_as`.
        """
        return bool(self.admin.pause(self.name, reason=reason, by=by))

    def resume(self) -> bool:
        """Let nodes claim jobs of the queue again; return False if it was not paused."""
        return bool(self.admin.resume(self.name))

    @property
    def paused(self) -> QueuePause | None:
        """Since when, by whom and why the queue is paused; None if it is not."""
        return next(iter(self.admin.paused(self.name)), None)
