"""The program that messages tell a user to run: `qworker`, or the one through which a framework runs its commands."""

from collections.abc import Callable

_name = "qworker"
_migrate: Callable[[str], str | None] | None = None


def use(name: str, migrate: Callable[[str], str | None] | None = None) -> None:
    """Have messages name this program; migrate returns the command that updates a schema, if it is another one."""
    global _name, _migrate
    _name, _migrate = name, migrate


def command(words: str) -> str:
    """Return a command line for a message."""
    return f"{_name} {words}"


def migrate_command(schema: str) -> str | None:
    """Return the framework's own command that creates or updates a schema; None if there is none."""
    return None if _migrate is None else _migrate(schema)
