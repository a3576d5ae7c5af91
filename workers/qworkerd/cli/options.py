"""Options of the command line, made from the settings, so that help, names and validation have one source."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

from qworkerd.config.durations import parse
from qworkerd.config.fields import NONE
from qworkerd.config.settings import NOT_ON_COMMAND_LINE, Settings, field_specs, misspelt, option
from qworkerd.config.target import resolve

F = TypeVar("F", bound=Callable[..., Any])


class Duration(click.ParamType):  # type: ignore[type-arg] # click 8.1 has none
    """A duration of zero or more: seconds, or units as in 5m."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        try:
            seconds = parse(value) if isinstance(value, str) else float(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not 0 <= seconds < float("inf"):
            self.fail(f"{value!r} is not a duration of zero or more", param, ctx)
        return seconds


def options(*names: str) -> Callable[[F], F]:
    """Add the options of some settings to a command, or of all; it gets them as keywords, None when not given.

    Their values stay text: `Settings.load` reads them, in the same way as the environment's.
    """

    def decorate(command: F) -> F:
        for name, kind in reversed(field_specs().items()):
            if name not in NOT_ON_COMMAND_LINE and (not names or name in names):
                help_text = f"{kind.text} {_default(name)}".strip()
                if kind.metavar:
                    command = click.option(option(name), metavar=kind.metavar, help=help_text)(command)
                else:
                    command = click.option(option(name), is_flag=True, default=None, help=help_text)(command)
        return command

    return decorate


def given(context: click.Context) -> dict[str, object]:
    """Return the settings given to a command and to those before it: `qworker --app shop:app jobs list`."""
    found: dict[str, object] = dict.fromkeys(field_specs())
    link: click.Context | None = context
    while link is not None:
        for name, value in link.params.items():
            if name in found and found[name] is None:
                found[name] = value
        link = link.parent
    return found


def targeted(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say where to work, and pass the command a Target in their place."""
    return _targeted(command, looking=False)


def looking(command: Callable[..., None]) -> Callable[..., None]:
    """Do the same for a command that can do without the application; see `qworkerd.config.target.aim`."""
    return _targeted(command, looking=True)


def _targeted(command: Callable[..., None], *, looking: bool) -> Callable[..., None]:
    @options("app", "schema")
    @click.pass_context
    @wraps(command)
    def aimed(context: click.Context, /, *, app: str | None, schema: str | None, **rest: Any) -> None:  # noqa: ARG001
        for name, meant in misspelt().items():
            click.echo(f"qworker: ${name} is set, but is not a setting; did you mean ${meant}?", err=True)
        command(resolve(given(context), looking=looking), **rest)

    return aimed


def _default(name: str) -> str:
    value = getattr(Settings(), name)
    if name in ("app", "processes") or isinstance(value, bool):
        return ""
    shown = NONE if value is None else ",".join(value) if isinstance(value, tuple) else value
    return f"[default: {shown:g}]" if isinstance(shown, float) else f"[default: {shown}]"
