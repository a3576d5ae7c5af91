"""Takes an action on jobs: on some by their ids, or on all that match a filter, as an operation that is confirmed."""

import sys
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import click

from qworker import program
from qworker.actor import acting_as
from qworker.admin import Admin
from qworker.errors import JobNotFound
from qworker.filters import Filter
from qworker.job import Job, JobState
from qworker.operations import Action, Operation, Operations
from qworker.search import PATIENT
from qworkerd.cli.operations import outcome, watch
from qworkerd.cli.options import refuse
from qworkerd.cli.running import local_time
from qworkerd.cli.tables import as_json, safe_echo, table
from qworkerd.cli.wanted import filter_of, ids_of
from qworkerd.config.target import Target
from qworkerd.process import exits

#: Maximum number of jobs changed by one statement.
PAGE = 500
#: Jobs that are shown before an operation is confirmed.
SAMPLES = 5
#: Why a job with a given id was not changed.
RULES = {
    Action.RETRY: "only failed jobs can be retried",
    Action.CANCEL: "only unfinished jobs can be cancelled",
    Action.DISCARD: "only failed jobs can be discarded",
    Action.AGAIN: "only jobs that have ended or failed can be run again, and no failure hooks",
    Action.RUN_NOW: "only scheduled jobs can be made available",
    Action.MOVE: "only jobs that wait or have failed can be moved, and not to where they are",
}


def act(target: Target, action: Action, words: tuple[str, ...], options: Mapping[str, Any], **more: Any) -> None:
    """Take an action on jobs given by ids or by a filter; more: arguments of the action itself."""
    if not words:
        raise click.UsageError("pass the ids of jobs, or a filter such as `queue:mail` or `state:failed`")
    ids = ids_of(words)
    with acting_as(via="cli", note=options["note"]):
        if ids is not None:
            refuse("rate", "detach", why="needs a filter: jobs that are given by their ids are changed at once")
            _by_ids(target.admin, action, ids, more, json_output=options["json_output"])
        else:
            _by_filter(target, action, filter_of(words), options, more)


def act_on_matching(target: Target, action: Action, wanted: Filter, options: Mapping[str, Any]) -> None:
    """Take an action on all jobs that match a filter; options: those of `operation_options`."""
    with acting_as(via="cli", note=options["note"]):
        _by_filter(target, action, wanted, options, {})


def _by_ids(admin: Admin, action: Action, ids: list[int], more: Mapping[str, Any], *, json_output: bool) -> None:
    ordered = sorted(set(ids))
    change = partial(getattr(admin, action.value), **more)
    done: dict[int, str] = {}
    copies: dict[int, int] = {}
    for at in range(0, len(ordered), PAGE):
        changed = change(*ordered[at : at + PAGE])
        done |= _described(action, changed, more)
        copies |= changed if action is Action.AGAIN else {}
    if json_output:
        found: dict[str, dict[str, Any]] = {
            str(job_id): {"changed": job_id in done, "state": _state(admin, job_id)} for job_id in ordered
        }
        if action is Action.AGAIN:
            for job_id, record in found.items():
                record["copy"] = copies.get(int(job_id))
        as_json(found)
    else:
        _report(admin, ids, done, RULES[action])
    if len(done) < len(ordered):
        click.get_current_context().exit(exits.FAILURE)


def _described(action: Action, changed: Iterable[int], more: Mapping[str, Any]) -> dict[int, str]:
    """Return what each job is now."""
    if action is Action.CANCEL:
        assert isinstance(changed, dict)  # noqa: S101
        words = {JobState.RUNNING: "running, cancellation requested"}
        return {job_id: words.get(state, str(state)) for job_id, state in changed.items()}
    if action is Action.AGAIN:
        assert isinstance(changed, dict)  # noqa: S101
        return {job_id: f"enqueued again as job {copy}" for job_id, copy in changed.items()}
    queue, priority = more.get("queue"), more.get("priority")
    where = [f"in queue {queue!r}"] * (queue is not None) + [f"with priority {priority}"] * (priority is not None)
    now = {
        Action.RETRY: "available again", Action.DISCARD: "discarded", Action.RUN_NOW: "available",
        Action.MOVE: " ".join(where),
    }  # fmt: skip
    return dict.fromkeys(changed, now[action])


def _report(admin: Admin, ids: Iterable[int], done: Mapping[int, str], rule: str) -> None:
    """Print the new state of each job, or why it was not changed."""
    for job_id in dict.fromkeys(ids):
        if job_id in done:
            safe_echo(f"job {job_id} is {done[job_id]}")
            continue
        try:
            safe_echo(f"job {job_id} is {admin.show(job_id).state}: {rule}", err=True)
        except JobNotFound as error:
            safe_echo(str(error), err=True)


def _state(admin: Admin, job_id: int) -> str | None:
    try:
        return admin.show(job_id).state.value
    except JobNotFound:
        return None


def _by_filter(
    target: Target, action: Action, wanted: Filter, options: Mapping[str, Any], more: Mapping[str, Any]
) -> None:
    """Show what matches, ask, create an operation, and wait for it."""
    affected = wanted.limited_to(action.states)
    search = target.search
    upper = search.last_id()
    count = search.count(affected, below=upper + 1, time_limit=PATIENT)
    if count.exact and not count.jobs:
        if options["json_output"]:
            as_json(None)
        safe_echo(f"no jobs match: {affected}", err=True)
        return
    if not options["yes"]:
        _confirm(action, affected, str(count), search.page(affected, limit=SAMPLES).jobs)
    known = Operations(target.schema)
    chosen = {name: value for name, value in more.items() if value is not None}
    with target.connection("client") as conn:
        operation = known.create(
            conn, action, wanted, upper_id=upper, expected=count.jobs if count.exact else None, rate=options["rate"],
            options=chosen,
        )  # fmt: skip
        if not options["detach"]:
            operation = watch(conn, target.schema, operation)
    _print(operation, json_output=options["json_output"])


def _confirm(action: Action, wanted: Filter, count: str, samples: Iterable[Job]) -> None:
    one = count == "1"
    safe_echo(f"1 job matches {wanted}:" if one else f"{count} jobs match {wanted}, among them:", err=True)
    head = ("ID", "STATE", "QUEUE", "TASK", "ENQUEUED")
    rows = [(j.id, j.state, j.queue, j.task, local_time(j.enqueued_at) if j.enqueued_at else None) for j in samples]
    table(head, rows, err=True)
    verb = action.value.replace("_", " ")
    try:
        agreed = click.confirm(f"{verb} {count} job{'s' * (not one)}?", err=True)
    except click.Abort:
        if not sys.stdin.isatty():  # nobody can answer: a script, a pipe, a container
            safe_echo("\nnobody answered, and nothing was changed; pass --yes to do it without asking", err=True)
        raise
    if not agreed:
        raise click.Abort


def _print(operation: Operation, *, json_output: bool) -> None:
    if json_output:
        as_json(operation)
    elif operation.running:
        show = program.command(f"operations show {operation.id}")
        safe_echo(f"operation {operation.id} is running: `{show}` shows how far it is")
    else:
        how = "" if operation.state == "completed" else f" is {operation.state}"
        safe_echo(f"operation {operation.id}{how}: {outcome(operation)}")
    if operation.state == "failed" or operation.failed:
        click.get_current_context().exit(exits.FAILURE)
