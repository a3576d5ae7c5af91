"""The commands of `manage.py qworker`: those of `qworker`, for the application of a Django project."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from qworkerd.cli.main import COMMANDS, exit_on_error, main
from qworkerd.cli.options import given, supplied

#: The module from which a node loads the application of an alias in TASKS.
NODE = "qworker.contrib.django.node"


class DjangoGroup(click.Group):
    """Finds the subcommands; `run` runs a node, as `qworker` without a subcommand does, and `drain` runs it once."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names of the subcommands."""
        return sorted(["run", "drain", *{*COMMANDS} - {"demo", "init"}])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a subcommand."""
        if cmd_name not in self.list_commands(ctx):
            return None
        if cmd_name == "run":
            found: click.Command | None = _node("run", "Run a node until SIGTERM or Ctrl-C.", reloads=True)
        elif cmd_name == "drain":
            found = _node("drain", "Run a node until its queues are empty, then exit: `run --burst`.", burst=True)
        else:
            found = main.get_command(ctx, cmd_name)
        return None if found is None else supplied(found)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command for the application of a backend."""
        ctx.params["app"] = f"{NODE}:{ctx.params['backend']}"
        with exit_on_error():
            return super().invoke(ctx)


@click.group("qworker", cls=DjangoGroup, context_settings=main.context_settings)
@click.option("--backend", default="default", metavar="ALIAS", help="The alias in TASKS.  [default: default]")
def qworker(**_: Any) -> None:
    """Run a node for this project, and inspect and change its jobs.

    Settings of nodes are taken from options, from variables such as QWORKER_PROCESSES, and from QWORKER in the settings
    of Django.
    """


def run(words: Sequence[str], *, program: str, check: Callable[[], None]) -> None:
    """Run a command line; check: runs the system checks before a node starts. Exits unless the status is 0."""
    try:
        status = qworker.main(list(words), prog_name=program, obj=check, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(1)
    if status:
        sys.exit(status)


def _node(name: str, text: str, *, burst: bool = False, reloads: bool = False) -> click.Command:
    @click.pass_context
    def callback(context: click.Context, /, *, reload: bool = False, **_: Any) -> None:
        if reload:
            from qworkerd.cli.reload import serve

            context.exit(serve())
        from qworkerd.cli.run import run as run_node

        context.obj()
        context.exit(run_node(given(context) | ({"burst": True} if burst else {})))

    hidden = {"app", "version", *({"burst"} if burst else ())}
    own: list[click.Parameter] = [param for param in main.params if param.name not in hidden]
    if reloads:
        text_of_reload = "Restart the node when Python code of the project changes; for development."
        own.append(click.Option(["--reload"], is_flag=True, help=text_of_reload))
    return click.Command(name, callback=callback, params=own, help=text)
