"""Show the tasks of an application: what they do, what they take, and their options."""

from textwrap import indent
from typing import Any

import click

from qworker import Task
from qworker.descriptions import TaskDescription, describe
from qworker.errors import ConfigurationError, UnknownTask
from qworker.forms import codec_of
from qworkerd.cli.completion import completing
from qworkerd.cli.options import of_application
from qworkerd.cli.tables import as_json, safe_echo, table
from qworkerd.config.target import Target

HEAD = ("TASK", "QUEUE", "PRIORITY", "TIMEOUT", "ATTEMPTS", "TYPED", "SCHEDULES", "NOTE")


@click.group(short_help="Show the tasks of the application.")
def tasks() -> None:
    """Show the tasks of the application; no database is needed."""


@tasks.command("list", short_help="List the tasks.")
@click.option("--json", "for_programs", is_flag=True, help="Print a JSON array.")
@of_application
def list_(to: Target, *, for_programs: bool) -> None:
    """List the tasks with their options, and the first line of what each says about itself."""
    app = to.application()
    found = [describe(app.tasks[name], app.schedules) for name in sorted(app.tasks)]
    if for_programs:
        as_json([task.as_dict() for task in found])
        return
    table(HEAD, [
        (task.name, task.queue, task.priority, task.timeout_text, task.retry["attempts"],
         "yes" if task.typed else None, _schedules(task), task.summary)
        for task in found
    ], note=True, empty="the application has no tasks: are the modules that declare them imported?")  # fmt: skip


@tasks.command(short_help="Show one task.")
@click.argument("name", shell_complete=completing("task"))
@click.option(
    "--schema", "schema_only", is_flag=True, help="Print only the JSON schema of its arguments (of a typed task)."
)
@click.option("--json", "for_programs", is_flag=True, help="Print a JSON object.")
@of_application
def show(to: Target, *, name: str, schema_only: bool, for_programs: bool) -> None:
    """Show what a task says about itself, its signature, its options, its schedules, and where it is defined."""
    app = to.application()
    try:
        task = app.get_task(name)
    except UnknownTask as error:
        raise click.UsageError(str(error)) from None
    if schema_only:
        as_json(_schema(task))
    elif for_programs:
        as_json(describe(task, app.schedules).as_dict())
    else:
        _show(describe(task, app.schedules))


def _show(task: TaskDescription) -> None:
    safe_echo(f"{task.name}{task.signature}")
    if task.doc:
        safe_echo()
        safe_echo(indent(task.doc, "    "))
    safe_echo()
    facts: list[tuple[str, object]] = [
        ("queue", task.queue), ("priority", task.priority), ("timeout", task.timeout_text or "that of the node"),
        ("attempts", task.retry["attempts"]), ("unique", task.unique), ("typed", _yes(task.typed)),
        ("transactional", _yes(task.transactional)), ("on_failure", _yes(task.on_failure)),
        ("upgrade", _yes(task.upgrade)), ("schedules", _schedules(task) or "none"), ("defined", task.location),
    ]  # fmt: skip
    for label, value in facts:
        safe_echo(f"{label + ':':<15}{value}")


def _yes(value: object) -> str:
    return "yes" if value else "no"


def _schema(task: Task[..., Any]) -> dict[str, Any]:
    codec = codec_of(task)
    if codec is None:
        raise ConfigurationError(f"task {task.name} has no schema, because it is not typed: declare it with typed=True")
    return codec.schema()


def _schedules(task: TaskDescription) -> str | None:
    found = [f"{schedule.expression} ({schedule.timezone})" for schedule in task.schedules.values()]
    return "; ".join(found) or None
