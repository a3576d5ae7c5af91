"""What the keys do with rows: open them, act on them. Threads do the work, and send messages to the screen."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from textual.app import App

from qworker.admin import Admin
from qworker.error_groups import ErrorGroup
from qworker.snapshot import QueueActivity, RunningJob
from qworker.status import NodeStatus
from qworker.timetable import ScheduleEntry
from qworkerd.top import background, details
from qworkerd.top.actions import Actions, Outcome, job_of
from qworkerd.top.cells import harmless
from qworkerd.top.messages import Filtered, Finished, Opened
from qworkerd.top.reading import describe
from qworkerd.top.screens import Prompt

#: Why a key does nothing.
GONE = "the row at the cursor has just gone: nothing was done"


class Commands:
    """Opens rows, and acts on them, for one screen."""

    def __init__(self, app: App[Any], admin: Admin, actions: Actions, report: Callable[[Outcome], None]) -> None:
        """The admin reads; report shows a message at once."""
        self._app = app
        self._admin = admin
        self._actions = actions
        self._report = report

    def open(self, row: Any) -> None:
        """Show everything about a row, or the jobs of a group of errors."""
        if isinstance(row, ErrorGroup):
            background.run(partial(self._read_filter, row))
        else:
            background.run(partial(self._read_details, row))

    def renew(self, row: Any) -> None:
        """Read the details that are shown again."""
        background.run(partial(self._read_details, row, renewed=True))

    def change(self, verb: str, rows: Sequence[Any]) -> None:
        """Retry, cancel or discard."""
        if not rows:
            self._report(Outcome(GONE, ok=False))
        elif not all(isinstance(row, ErrorGroup) or job_of(row) is not None for row in rows):
            self._report(Outcome(f"{verb} acts on jobs: go to Running or Failures", ok=False))
        else:
            self._start(f"{verb} …", partial(self._actions.change, verb, rows))

    def pause(self, rows: Sequence[Any]) -> None:
        """Pause queues, nodes or schedules after asking for the reason; resume those that are paused."""
        if not rows:
            self._report(Outcome(GONE, ok=False))
            return
        if not all(isinstance(row, (QueueActivity, NodeStatus, ScheduleEntry)) for row in rows):
            self._report(Outcome("p pauses queues, nodes and schedules: go to Queues, Nodes or Schedules", ok=False))
            return
        names = harmless(", ".join(row.name for row in rows))
        if all(row.paused is not None for row in rows):
            self._app.push_screen(
                Prompt(f"Resume {names}? Enter resumes, Esc does not."), partial(self._resume, rows)
            )  # fmt: skip
        else:
            self._app.push_screen(Prompt(f"Pause {names}. Reason (Enter pauses):"), partial(self._pause, rows))

    def stack(self, rows: Sequence[Any]) -> None:
        """Show the stacks of a running job."""
        job = job_of(rows[0]) if rows else None
        if not rows:
            self._report(Outcome(GONE, ok=False))
        elif job is None:
            self._report(Outcome("S shows the stack of a running job: go to Running", ok=False))
        else:
            self._start(f"waiting for the stack of job {job.id} …", partial(self._read_stack, rows[0], job.id))

    def _pause(self, rows: Sequence[Any], reason: str | None) -> None:
        if reason is not None:
            self._start("pausing …", partial(self._actions.pause, rows, reason))

    def _resume(self, rows: Sequence[Any], answer: str | None) -> None:
        if answer is not None:
            self._start("resuming …", partial(self._actions.resume, rows))

    def _start(self, progress: str, action: Callable[[], Outcome]) -> None:
        self._report(Outcome(progress))
        background.run(lambda: self._app.post_message(Finished(self._actions.attempt(action))))

    def _read_stack(self, row: RunningJob, job_id: int) -> Outcome:
        title, facts = details.stack(self._actions.stack(job_id))
        self._app.post_message(Opened(row, title, facts))
        return Outcome(f"the stack of job {job_id} was read")

    def _read_filter(self, group: ErrorGroup) -> None:
        try:
            text = str(self._admin.jobs_of_error_group(group.fingerprint))
        except Exception as error:  # noqa: BLE001 - whatever a row or a server causes is shown
            self._app.post_message(Finished(Outcome(harmless(describe(error)), ok=False)))
            return
        self._app.post_message(Filtered(text))

    def _read_details(self, row: Any, *, renewed: bool = False) -> None:
        try:
            title, facts = details.read(self._admin, row)
        except Exception as error:  # noqa: BLE001 - as above
            if not renewed:
                self._app.post_message(Finished(Outcome(harmless(describe(error)), ok=False)))
            return
        self._app.post_message(Opened(row, title, facts, renewed))
