"""`qworker init`: what it writes, and what it does not overwrite."""

import configparser
from importlib.resources import files
from pathlib import Path

import pytest

from tests.qworkerd.conftest import Command

KINDS = ("plain", "django", "flask")
TEMPLATES = Path(str(files("qworkerd.cli") / "templates"))


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_template_is_written_once_and_is_python_where_it_says_so(
    kind: str, command: Command, tmp_path: Path
) -> None:
    done = command("init", f"--{kind}", str(tmp_path / "new"))
    assert done.exit_code == 0, done.stderr
    written = contents(tmp_path / "new")
    templates = contents(TEMPLATES / "common") | contents(TEMPLATES / kind)
    assert {f"{name}.in" for name in written} == set(templates) - {"next.sh.in"}
    assert all(text == templates[f"{name}.in"] for name, text in written.items())
    for name, text in written.items():
        if name.endswith(".py"):
            compile(text, name, "exec")
            assert text.startswith('"""')
    assert f"cd {tmp_path / 'new'}\n" in done.stdout
    assert "DATABASE_URL=postgresql://app:app@" in done.stdout


def test_the_unit_starts_what_the_settings_name(command: Command, tmp_path: Path) -> None:
    for kind in KINDS:
        command("init", f"--{kind}", str(tmp_path / kind))
        unit = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
        unit.read(tmp_path / kind / "qworker.service")
        assert unit["Service"]["ExecStart"].endswith("/bin/qworker")
        variables = (tmp_path / kind / "qworker.env").read_text()
        settings = tmp_path / kind / "pyproject.toml"
        assert "QWORKER_APP=" in variables or "\napp = " in settings.read_text()


def test_files_that_exist_are_named_and_nothing_is_written(command: Command, tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text("mine")
    done = command("init", str(tmp_path))
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [
        f"qworker: {tmp_path / 'jobs.py'} exists",
        "qworker: nothing was written: name another directory, or overwrite these files with --force",
    ]
    assert contents(tmp_path) == {"jobs.py": "mine"}


def test_force_overwrites_them(command: Command, tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text("mine")
    (tmp_path / "other.py").write_text("mine")
    assert command("init", "--force", str(tmp_path)).exit_code == 0
    assert contents(tmp_path)["jobs.py"].startswith('"""The tasks')
    assert contents(tmp_path)["other.py"] == "mine"


def test_a_folder_that_cannot_be_written_is_named(command: Command, tmp_path: Path) -> None:
    (tmp_path / "tests").write_text("a file")
    done = command("init", str(tmp_path))
    assert done.exit_code == 1
    assert str(tmp_path / "tests") in done.stderr
