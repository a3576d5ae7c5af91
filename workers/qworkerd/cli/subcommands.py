"""A group of commands, some of which are in modules that are imported on demand."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

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
        """Insert the subcommand before the first option that only it has."""
        own = {option: param for param in self.get_params(ctx) for option in param.opts}
        at = 0
        while at < len(args) and args[at].startswith("-"):
            name, _, value = args[at].partition("=")
            if name not in own:
                args = [*args[:at], "list", *args[at:]]
                break
            at += 1 + (not value and not getattr(own[name], "is_flag", False))
        return super().parse_args(ctx, args)
