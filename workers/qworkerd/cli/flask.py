"""The group `flask qworker`: the commands of `qworker`, for the application that Flask's command finds.

Flask imports this module with each of its commands. It loads nothing else until a command of the group is used.
"""

from typing import Any

import click

#: Where the commands find the application.
APP = "qworker.contrib.flask.node:app"


class FlaskGroup(click.Group):
    """Finds the subcommands; `run` runs a node, as `qworker` without a subcommand does."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names of the subcommands."""
        from qworkerd.cli.main import COMMANDS

        return sorted(["run", *{*COMMANDS} - {"demo", "init"}])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a subcommand."""
        from qworkerd.cli.main import main
        from qworkerd.cli.options import supplied

        if cmd_name not in self.list_commands(ctx):
            return None
        found = _run() if cmd_name == "run" else main.get_command(ctx, cmd_name)
        return None if found is None else supplied(found)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command for the application of Flask's command."""
        from flask.cli import ScriptInfo

        from qworker.contrib.flask.loading import provide
        from qworkerd.cli.main import exit_on_error

        if (info := ctx.find_object(ScriptInfo)) is not None:
            provide(info.load_app)
        ctx.params["app"] = APP
        with exit_on_error():
            return super().invoke(ctx)


qworker = FlaskGroup("qworker", help="Run a node for this application, and inspect and change its jobs.")


def _run() -> click.Command:
    from qworkerd.cli.main import main
    from qworkerd.cli.options import given
    from qworkerd.cli.run import run

    @click.pass_context
    def callback(context: click.Context, /, **_: Any) -> None:
        context.exit(run(given(context)))

    own = [param for param in main.params if param.name not in {"app", "version"}]
    return click.Command("run", callback=callback, params=own, help="Run a node until SIGTERM or Ctrl-C.")
