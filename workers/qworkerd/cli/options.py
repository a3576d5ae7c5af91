"""Creates the options of the command line from the settings, so that names, help and validation are defined once."""

from collections.abc import Callable, Container
from contextlib import closing
from copy import copy
from functools import wraps
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from qworker.actor import Via, acting_as
from qworker.durations import parse_duration
from qworkerd.config.fields import NONE
from qworkerd.config.settings import NOT_ON_COMMAND_LINE, Settings, field_specs, misspelt, option
from qworkerd.config.target import resolve

F = TypeVar("F", bound=Callable[..., Any])

#: The options for what a framework knows from its own configuration.
SUPPLIED = frozenset({"app", "schema"})


class Duration(click.ParamType):  # type: ignore[type-arg] # click 8.1 has none
    """A duration of zero or more: seconds, or units as in 5m."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        try:
            seconds = parse_duration(value) if isinstance(value, str) else float(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not 0 <= seconds < float("inf"):
            self.fail(f"{value!r} is not a duration of zero or more", param, ctx)
        return seconds


def options(*names: str) -> Callable[[F], F]:
    """Add options for the named settings, or for all settings, to a command, which gets them as keyword arguments.

    An option that is not given is None. Values are strings, which `Settings.load` parses like environment variables.
    """

    def decorate(command: F) -> F:
        for name, spec in reversed(field_specs().items()):
            if name not in NOT_ON_COMMAND_LINE and (not names or name in names):
                help_text = f"{spec.help} {_default(name)}".strip()
                if spec.metavar:
                    command = click.option(option(name), metavar=spec.metavar, help=help_text)(command)
                else:
                    command = click.option(option(name), is_flag=True, default=None, help=help_text)(command)
        return command

    return decorate


def given(context: click.Context) -> dict[str, object]:
    """Return the settings given to a command and to its parent commands: `qworker --app shop:app jobs list`."""
    found: dict[str, object] = dict.fromkeys(field_specs())
    link: click.Context | None = context
    while link is not None:
        for name, value in link.params.items():
            if name in found and found[name] is None:
                found[name] = value
        link = link.parent
    return found


def typed(*names: str) -> list[str]:
    """Return which of the parameters of the command that runs were given on the command line, as options."""
    context = click.get_current_context()
    return [
        param.opts[-1]
        for param in context.command.params
        if param.name in names and context.get_parameter_source(param.name) is ParameterSource.COMMANDLINE
    ]


def refuse(*names: str, why: str) -> None:
    """Raise a usage error if one of these parameters was given, which has no effect."""
    if found := typed(*names):
        raise click.UsageError(f"{found[0]} {why}")


def refuse_before(group: click.Context, what: str, *, except_for: Container[str] = ()) -> None:
    """Raise a usage error if an option was given before a subcommand that would ignore it."""
    for name in typed(*(param.name for param in group.command.params if param.name not in except_for)):
        raise click.UsageError(f"{name} is {what}, and has no effect on `{group.invoked_subcommand}`: leave it out")


def targeted(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that name the application and the schema; the command gets a Target instead of them."""
    return _targeted(command, app_optional=False)


def app_optional(command: Callable[..., None]) -> Callable[..., None]:
    """Do the same for a command that does not need the application; see `qworkerd.config.target.resolve`."""
    return _targeted(command, app_optional=True)


def of_application(command: Callable[..., None]) -> Callable[..., None]:
    """Do the same for a command that needs the application but no database."""
    return _targeted(command, app_optional=False, named=("app",))


def supplied(command: click.Command) -> click.Command:
    """Return a command without the options that a framework supplies in its help, and so for its subcommands.

    They are still accepted: a script may name another schema.
    """
    found = copy(command)
    found.params = [_hidden(param) if param.name in SUPPLIED else param for param in command.params]
    if isinstance(found, click.Group):
        context = click.Context(command)
        children = {name: found.get_command(context, name) for name in found.list_commands(context)}
        found.commands = {name: supplied(child) for name, child in children.items() if child is not None}
    return found


def _hidden(param: click.Parameter) -> click.Parameter:
    found = copy(param)
    if isinstance(found, click.Option):
        found.hidden = True
    return found


def _targeted(
    command: Callable[..., None], *, app_optional: bool, named: tuple[str, ...] = ("app", "schema")
) -> Callable[..., None]:
    @options(*named)
    @click.pass_context
    @wraps(command)
    def with_target(context: click.Context, /, **given_here: Any) -> None:
        rest = {name: value for name, value in given_here.items() if name not in named}
        for name, meant in misspelt().items():
            click.echo(f"qworker: ${name} is set, but is not a setting; did you mean ${meant}?", err=True)
        target = resolve(given(context), app_optional=app_optional)
        with closing(target), acting_as(via=Via.CLI):
            command(target, **rest)

    return with_target


def _default(name: str) -> str:
    value = getattr(Settings(), name)
    if name in ("app", "processes") or isinstance(value, bool):
        return ""
    shown = NONE if value is None else ",".join(value) if isinstance(value, tuple) else value
    return f"[default: {shown:g}]" if isinstance(shown, float) else f"[default: {shown}]"
