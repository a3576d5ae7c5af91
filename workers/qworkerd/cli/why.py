"""Explain why a job does not run."""

from dataclasses import asdict

import click

from qworker.reasons import NEEDS_ACTION, Explanation
from qworkerd.cli.jobs import IDS
from qworkerd.cli.options import app_optional
from qworkerd.cli.paragraphs import paragraph, room
from qworkerd.cli.tables import as_json, safe_echo
from qworkerd.config.target import Target
from qworkerd.process import exits


@click.command(short_help="Explain why a job does not run.")
@click.argument("job_id", metavar="ID", type=IDS)
@click.option("--json", "json_output", is_flag=True, help="Print a JSON object.")
@app_optional
def why(target: Target, *, job_id: int, json_output: bool) -> None:
    """Explain why a job does not run, or how it ended, with what can be done about it.

    Exits with status 0 if the job runs, has ended, or will start without help, and with status 1 if something must be
    done, or the job does not exist.
    """
    found = target.admin.explain(job_id)
    if json_output:
        job = found.job
        as_json({
            "job": job.id, "state": job.state, "queue": job.queue, "task": job.task, "needs_action": found.needs_action,
            "reasons": [asdict(reason) for reason in found.reasons],
            "position": None if found.position is None else asdict(found.position),
        })  # fmt: skip
    else:
        _show(found)
    click.get_current_context().exit(exits.FAILURE if found.needs_action else exits.OK)


def _show(found: Explanation) -> None:
    job = found.job
    safe_echo(f"job {job.id} of task {job.task} in queue {job.queue} is {job.state}")
    for reason in found.reasons:
        mark = "!" if reason.cause in NEEDS_ACTION else ""
        paragraph(reason.summary, room(), label=mark, color="red", indent="  ")
        if reason.remedy:
            safe_echo(reason.remedy, prefix="      ")
    if found.position is not None and found.position.rate:
        safe_echo(f"{found.position.rate:.3g} jobs of the queue ended each second in the last minutes", prefix="  ")
