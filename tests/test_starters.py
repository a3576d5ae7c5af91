"""What `qworker init` writes works as printed, in an environment with nothing else in it."""

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.database import Database
from tests.environment import Environment, build_wheel

#: The command whose output is "N passed" or "Ran N tests", and the words that say that all were good.
TESTED = {
    "plain": ("pytest", "3 passed"),
    "flask": ("pytest", "2 passed"),
    "django": ("python manage.py test", "\nOK\n"),
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("tree"))


@pytest.mark.parametrize("kind", TESTED)
def test_what_is_written_works_as_printed(kind: str, wheel: Path, empty_database: Database, tmp_path: Path) -> None:
    url = "postgresql://{user}:{password}@{host}:{port}/{dbname}".format(**conninfo_to_dict(empty_database.dsn))
    folder = tmp_path / "project"
    folder.mkdir()
    environment = Environment(tmp_path / "venv", folder, wheel, DATABASE_URL=url)
    environment.type("pip install pgqworker[binary]")
    written, _, commands = environment.type(f"qworker init --{kind}").partition("\nnext:\n")
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {line.removeprefix("wrote ") for line in written.splitlines()} == files

    # There is no Docker here: the variable names a server.
    lines = [line.strip() for line in commands.splitlines() if line.strip() and not line.strip().startswith("docker")]
    printed = {line.partition("  #")[0].rstrip(): environment.type(line) for line in lines}
    command, words = TESTED[kind]
    assert words in printed[command]
    assert "a node can start" in next(text for line, text in printed.items() if line.endswith("check"))
    assert "greet" in next(text for line, text in printed.items() if line.endswith("jobs list"))
    with empty_database.connect() as conn:
        ended = conn.execute("SELECT task, state, result #>> '{}' FROM qworker.jobs").fetchall()
    assert [(task.rpartition(".")[2], state, result) for task, state, result in ended] == [
        ("greet", "completed", "hello, Ada")
    ]
