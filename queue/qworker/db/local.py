"""Settings of the session that apply to a few statements."""

from collections.abc import Iterator
from contextlib import contextmanager

from qworker.db.statements import Database, load


@contextmanager
def setting(database: Database, name: str, value: str) -> Iterator[None]:
    """Change a setting for the statements of a block, in a transaction, or in a savepoint of the one that is open."""
    statement = load("local")["change"]
    with database.transaction():  # if a statement fails, its end restores the setting
        ((before,),) = database.execute(statement, {"name": name, "value": value}).fetchall()
        yield
        database.execute(statement, {"name": name, "value": before})
