"""Write the files of a new project."""

import shlex
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from qworkerd.cli.tables import safe_echo
from qworkerd.process import exits

#: Templates end with this, so that no tool takes them for modules of this package.
SUFFIX = ".in"
#: The commands to type next; printed, and not written.
NEXT = "next.sh"


@click.command(short_help="Write the files of a new project.")
@click.argument("directory", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option("--plain", "kind", flag_value="plain", help="Without a framework (the default).")
@click.option("--django", "kind", flag_value="django", help="A project of Django.")
@click.option("--flask", "kind", flag_value="flask", help="An application of Flask.")
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
@click.pass_context
def init(context: click.Context, /, *, directory: Path, kind: str | None, force: bool) -> None:
    """Write the files of a new project into DIRECTORY, by default the current one, and print what to type next.

    The files are a module with tasks, settings, a first test, the packages that are needed, compose.yaml with a
    PostgreSQL and a node, and qworker.service for systemd. If one of them exists, nothing is written, and the exit
    status is 1.
    """
    found = dict(sorted((_read("common") | _read(kind or "plain")).items()))
    commands = found.pop(NEXT)
    existing = [name for name in found if (directory / name).exists()]
    if existing and not force:
        for name in existing:
            safe_echo(f"qworker: {directory / name} exists", err=True)
        safe_echo(
            "qworker: nothing was written: name another directory, or overwrite these files with --force", err=True
        )
        context.exit(exits.FAILURE)
    for name, text in found.items():
        try:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(text)
        except OSError as error:
            raise click.FileError(str(directory / name), error.strerror or str(error)) from None
        safe_echo(f"wrote {directory / name}")
    safe_echo("\nnext:\n")
    if directory.resolve() != Path.cwd():
        safe_echo(f"  cd {shlex.quote(str(directory))}")
    for line in commands.splitlines():
        click.echo(f"  {line}".rstrip())  # as it is: safe_echo would hide the password of the example


def _read(kind: str) -> dict[str, str]:
    """Return the files of a kind of project, by their names."""
    return dict(_walk(files("qworkerd.cli") / "templates" / kind, ""))


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, str]]:
    found = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _walk(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(SUFFIX):
            found.append((prefix + entry.name.removesuffix(SUFFIX), entry.read_text("utf-8")))
    return found
