"""Show the tasks of an application: what they do, what they take, and their options."""

import inspect
from dataclasses import asdict
from textwrap import indent
from typing import Any

import click

from qworker import App, Task
from qworker.errors import ConfigurationError, UnknownTask
from qworker.options import UNSET
from qworkerd.cli.options import of_application
from qworkerd.cli.tables import as_json, safe_echo, table
from qworkerd.config.durations import format_duration
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
    found = [app.tasks[name] for name in sorted(app.tasks)]
    if for_programs:
        as_json([_record(app, task) for task in found])
        return
    table(HEAD, [
        (task.name, task.queue, task.priority, _timeout(task), task.retry.attempts, "yes" if _typed(task) else None,
         _schedules(app, task), _doc(task).partition("\n")[0])
        for task in found
    ], note=True, empty="the application has no tasks: are the modules that declare them imported?")  # fmt: skip


@tasks.command(short_help="Show one task.")
@click.argument("name")
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
        as_json(_record(app, task))
    else:
        _describe(app, task)


def _describe(app: App, task: Task[..., Any]) -> None:
    safe_echo(f"{task.name}{_signature(task)}")
    if text := _doc(task):
        safe_echo()
        safe_echo(indent(text, "    "))
    safe_echo()
    retry = task.retry
    facts: list[tuple[str, object]] = [
        ("queue", task.queue), ("priority", task.priority), ("timeout", _timeout(task) or "that of the node"),
        ("attempts", retry.attempts), ("unique", _unique(task)),
        ("typed", "yes" if _typed(task) else "no"), ("transactional", "yes" if task.transactional else "no"),
        ("on_failure", "yes" if task.hook is not None else "no"), ("upgrade", "yes" if _upgrade(task) else "no"),
        ("schedules", _schedules(app, task) or "none"), ("defined", task.location),
    ]  # fmt: skip
    for label, value in facts:
        safe_echo(f"{label + ':':<15}{value}")


def _record(app: App, task: Task[..., Any]) -> dict[str, Any]:
    retry = task.retry
    return {
        "name": task.name, "doc": _doc(task), "signature": _signature(task), "queue": task.queue,
        "priority": task.priority, "timeout": None if task.timeout is UNSET else task.timeout,
        "retry": {name: value for name, value in asdict(retry).items() if not callable(value)},
        "unique": _unique(task), "typed": _typed(task), "transactional": task.transactional,
        "on_failure": task.hook is not None, "upgrade": _upgrade(task),
        "schedules": {
            name: {"expression": schedule.expression, "timezone": schedule.timezone}
            for name, schedule in sorted(app.schedules.items()) if schedule.task == task.name
        },
        "schema": _schema(task) if _typed(task) else None, "location": task.location,
    }  # fmt: skip


def _doc(task: Task[..., Any]) -> str:
    """Return the docstring; the one that Python writes for a dataclass says only what the signature says."""
    text = inspect.cleandoc(task.__doc__ or "")
    return "" if text.startswith(f"{task.__name__}(") else text


def _signature(task: Task[..., Any]) -> str:
    try:
        return str(inspect.signature(task))
    except ValueError:
        return "(...)"


def _typed(task: Task[..., Any]) -> bool:
    return task.conversion is not None and task.conversion.codec is not None


def _upgrade(task: Task[..., Any]) -> bool:
    return task.conversion is not None and task.conversion.upgrade is not None


def _schema(task: Task[..., Any]) -> dict[str, Any]:
    if task.conversion is None or task.conversion.codec is None:
        raise ConfigurationError(f"task {task.name} has no schema, because it is not typed: declare it with typed=True")
    return task.conversion.codec.schema()


def _timeout(task: Task[..., Any]) -> str | None:
    if task.timeout is UNSET:
        return None
    return "none" if task.timeout is None else format_duration(float(task.timeout))


def _unique(task: Task[..., Any]) -> str:
    unique, seconds = task.defaults.unique, task.defaults.unique_for
    if not unique and seconds is UNSET:
        return "no"
    key = f"key {unique!r}" if isinstance(unique, str) else "by its arguments"
    return key if seconds is UNSET else f"{key}, for {format_duration(float(seconds))}"  # type: ignore[arg-type] # seconds by now


def _schedules(app: App, task: Task[..., Any]) -> str | None:
    found = [
        f"{schedule.expression} ({schedule.timezone})"
        for _, schedule in sorted(app.schedules.items())
        if schedule.task == task.name
    ]
    return "; ".join(found) or None
