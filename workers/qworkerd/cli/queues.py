"""Show how many jobs each queue holds."""

import click

from qworker.job import JobState
from qworkerd.cli.options import looking
from qworkerd.cli.tables import as_json, table
from qworkerd.target import Target

SHOWN = (JobState.AVAILABLE, JobState.RUNNING, JobState.SCHEDULED, JobState.BLOCKED, JobState.FAILED)


@click.command(short_help="Count the jobs of each queue.")
@click.option("--json", "for_programs", is_flag=True, help="Print a JSON object.")
@looking
def queues(to: Target, *, for_programs: bool) -> None:
    """Show how many jobs each queue holds, by state; finished ones are not counted."""
    sizes = to.admin.sizes()
    counts = {name: {state.value: states.get(state, 0) for state in SHOWN} for name, states in sorted(sizes.items())}
    if for_programs:
        as_json(counts)
    else:
        head = ("QUEUE", *(state.value.upper() for state in SHOWN))
        table(head, [(name, *states.values()) for name, states in counts.items()])
