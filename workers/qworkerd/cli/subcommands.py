"""A group of commands, some of which are in modules that are imported on demand."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from qworker import program
from qworker.nearest import suggestion


class LazyGroup(click.Group):
    """Takes the modules of the commands that are imported on demand, by the names of the commands."""

    def __init__(self, *args: Any, modules: Mapping[str, str], **options: Any) -> None:
        super().__init__(*args, **options)
        self._modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*super().list_commands(ctx), *self._modules})

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:  # fmt: skip
        """Return the command that is named; the error about an unknown one suggests the nearest."""
        name = args[0]
        if not ctx.resilient_parsing and not name.startswith("-") and self.get_command(ctx, name) is None:
            hint = suggestion(name, self.list_commands(ctx)) or "."
            raise click.UsageError(f"No such command {name!r}{hint}", ctx)
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command unless it is one of this group."""
        if cmd_name in self.commands or cmd_name not in self._modules:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(import_module(self._modules[cmd_name]), cmd_name)
        return command


class ListingGroup(click.Group):
    """A group whose subcommand `list` is the default, with all its options: `errors --json` is `errors list --json`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert `list` at the end, or before the first option that only it has."""
        own = _options(self, ctx)
        at = _behind(own, args, 0)
        if at == len(args) and not ctx.resilient_parsing:
            args = [*args, "list"]
        elif at < len(args) and args[at].startswith("-"):
            self._refuse_before_subcommand(ctx, own, args, at)
            args = [*args[:at], "list", *args[at:]]
        return super().parse_args(ctx, args)

    def _refuse_before_subcommand(
        self, ctx: click.Context, own: Mapping[str, click.Parameter], args: list[str], at: int
    ) -> None:
        """Refuse an option of `list` before the name of another subcommand: it would not have an effect."""
        behind = _behind({**own, **_options(self.commands["list"], ctx)}, args, at)
        if behind < len(args) and args[behind] in self.commands and not ctx.resilient_parsing:
            option, words = args[at].partition("=")[0], program.command(f"{ctx.info_name} {args[behind]}")
            if option in _options(self.commands[args[behind]], ctx):
                raise click.UsageError(f"put {option} after the subcommand: {words} {option}", ctx)
            raise click.UsageError(f"{words} has no option {option}", ctx)


def _options(command: click.Command, ctx: click.Context) -> dict[str, click.Parameter]:
    return {option: param for param in command.get_params(ctx) for option in param.opts}


def _behind(known: Mapping[str, click.Parameter], args: list[str], at: int) -> int:
    """Return the index of the first word, from one on, that is neither one of these options nor the value of one."""
    while at < len(args) and (name := args[at].partition("=")[0]) in known:
        at += 1 + ("=" not in args[at] and not getattr(known[name], "is_flag", False))
    return at
