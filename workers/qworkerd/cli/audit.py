"""Show who retried, cancelled, paused or edited what."""

from typing import Any

import click

from qworker.audit import MAX_ENTRIES, AuditEntry
from qworkerd.cli.completion import completing
from qworkerd.cli.jobs import IDS
from qworkerd.cli.moments import MOMENT
from qworkerd.cli.options import app_optional
from qworkerd.cli.running import local_time
from qworkerd.cli.tables import as_json, table
from qworkerd.config.target import Target

HEAD = ("WHEN", "ACTOR", "ROLE", "VIA", "ACTION", "TARGET", "NOTE")
#: How many of the jobs, queues or schedules of an action the table shows.
MAX_SHOWN = 5
#: The names of kinds for one of them, where it is not the plural without its last letter.
_SINGULAR = {"copies": "copy"}


@click.command(short_help="Show who retried, cancelled, paused or edited what.")
@click.option("--job", type=IDS, metavar="ID", help="Only actions on this job.")
@click.option("--queue", metavar="NAME", shell_complete=completing("queue"), help="Only actions on this queue.")
@click.option("--schedule", metavar="NAME", shell_complete=completing("cron"), help="Only actions on this schedule.")
@click.option(
    "--node", metavar="NAME", shell_complete=completing("node"), help="Only actions on the node of this name."
)
@click.option("--actor", metavar="NAME", help="Only actions of this user, as shown in the column ACTOR.")
@click.option("--action", metavar="NAME", help="Only actions of this kind: job.retry, or job for all actions on jobs.")
@click.option("--since", type=MOMENT, metavar="TIME", help="Only later actions: 2h, 7d, or 2026-01-31T09:00.")
@click.option("--until", type=MOMENT, metavar="TIME", help="Only earlier actions.")
@click.option(
    "--limit", type=click.IntRange(1, MAX_ENTRIES), default=50, metavar="N",
    help="Maximum number of actions. [default: 50]",
)  # fmt: skip
@click.option("--below", type=IDS, metavar="ID", help="Only actions with a lower id: continues an earlier list.")
@click.option("--json", "json_output", is_flag=True, help="Print a JSON array with all fields of each action.")
@app_optional
def audit(target: Target, *, json_output: bool, **wanted: Any) -> None:
    """List the actions that were taken by hand, the newest first. They are kept for 400 days.

    An action is stored by the statement that takes it. ACTOR is the signed-in user, or user@host of the process. ROLE
    is the role of the database session, as the server knows it.
    """
    found = target.admin.audit(**wanted)
    if json_output:
        as_json(found)
        return
    table(HEAD, [
        (local_time(entry.at), entry.actor, entry.role, via(entry), entry.action, summary(entry), entry.note)
        for entry in found
    ], note=True, empty="no matching actions" if any(value for name, value in wanted.items() if name != "limit")
       else "no actions")  # fmt: skip
    if len(found) == wanted["limit"]:
        click.echo(f"there may be more: --below {found[-1].id}", err=True)


def via(entry: AuditEntry) -> str:
    """Return where an action was taken."""
    return f"{entry.via} {entry.address}" if entry.address else entry.via


def summary(entry: AuditEntry) -> str:
    """Return what an action was done to, shortened."""
    parts = []
    for kind, value in entry.target.items():
        values = value if isinstance(value, list) else [value]
        more = f" and {len(values) - MAX_SHOWN} more" if len(values) > MAX_SHOWN else ""
        shown = _SINGULAR.get(kind, kind.removesuffix("s")) if len(values) == 1 else kind
        parts.append(f"{shown} {', '.join(map(str, values[:MAX_SHOWN]))}{more}")
    return "; ".join(parts)
