"""Show how many jobs each queue holds."""

from dataclasses import asdict

import click

from qworker.admin import QueueStatus
from qworker.job import JobState
from qworkerd.cli.options import looking
from qworkerd.cli.tables import as_json, table
from qworkerd.config.durations import spell
from qworkerd.config.target import Target

SHOWN = (JobState.AVAILABLE, JobState.RUNNING, JobState.SCHEDULED, JobState.BLOCKED, JobState.FAILED)


@click.command(short_help="Count the jobs of each queue, and show who serves it.")
@click.option("--json", "for_programs", is_flag=True, help="Print a JSON object.")
@looking
def queues(to: Target, *, for_programs: bool) -> None:
    """Show the jobs of each queue by state, how long the oldest available one has existed, and which nodes serve it.

    Finished jobs are not counted. Queues that are served and empty are shown, too.
    """
    found = to.admin.queues()
    if for_programs:
        as_json({queue.name: _record(queue) for queue in found})
        return
    # No job is blocked as a rule: the column would take the room of others.
    blocked = any(JobState.BLOCKED in queue.jobs for queue in found)
    states = [state for state in SHOWN if state is not JobState.BLOCKED or blocked]
    head = ("QUEUE", *(state.value.upper() for state in states), "OLDEST", "SERVED BY")
    table(head, [
        (queue.name, *(queue.jobs.get(state, 0) for state in states),
         None if queue.oldest_age is None else spell(queue.oldest_age), queue.nodes or "no living node")
        for queue in found
    ], empty="no queue holds a job, and none is served")  # fmt: skip


def _record(queue: QueueStatus) -> dict[str, object]:
    rest = {name: value for name, value in asdict(queue).items() if name not in ("name", "jobs")}
    return {state.value: queue.jobs.get(state, 0) for state in SHOWN} | rest
