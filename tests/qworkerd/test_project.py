"""Which pyproject.toml is believed: what it names is imported and run, and gets the password."""

import os
import pwd
from pathlib import Path

import pytest

from qworkerd.config.project import find
from tests.qworkerd.conftest import Command

TABLE = "[tool.qworker]\nprocesses = 3\n"

root = pytest.mark.skipif(os.geteuid() != 0, reason="giving files away takes root")


@pytest.fixture
def inner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder two levels down in a tree that is ours."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = tmp_path / "outer" / "inner"
    path.mkdir(parents=True)
    return path


def put(folder: Path, mode: int = 0o644) -> Path:
    path = folder / "pyproject.toml"
    path.write_text(TABLE)
    path.chmod(mode)
    return path


def test_a_file_of_ours_counts_also_from_a_folder_below(inner: Path) -> None:
    path = put(inner.parent)
    assert find(inner).table == {"processes": 3}
    assert find(inner).origin == f"[tool.qworker] in {path}"
    assert find(inner).ignored == ()


@pytest.mark.parametrize("mode", [0o666, 0o646])
def test_a_file_that_everybody_may_write_is_ignored(inner: Path, mode: int) -> None:
    path = put(inner, mode)
    assert find(inner).table == {}
    assert find(inner).ignored == (f"{path} is ignored: it is writable by everyone",)


def test_a_file_of_ours_above_an_ignored_one_counts(inner: Path) -> None:
    put(inner, 0o666)
    put(inner.parent)
    assert find(inner).table == {"processes": 3}
    assert len(find(inner).ignored) == 1


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_nothing_counts_in_or_above_a_directory_that_everybody_may_write(inner: Path, mode: int) -> None:
    put(inner.parent.parent)
    path = put(inner.parent)
    inner.parent.chmod(mode)
    assert find(inner).table == {}
    assert find(inner).ignored == (f"{path} is ignored: its directory is writable by everyone",)


@root
def test_a_file_or_directory_of_somebody_else_is_ignored(inner: Path) -> None:
    absent = pwd.getpwnam("nobody")
    path = put(inner)
    os.chown(path, absent.pw_uid, absent.pw_gid)
    (message,) = find(inner).ignored
    assert "belongs to nobody (user" in message
    os.chown(path, 0, 0)
    os.chown(inner, absent.pw_uid, absent.pw_gid)
    assert find(inner).table == {}


@root
def test_a_group_may_write_if_it_is_the_owners_own(inner: Path) -> None:
    path = put(inner, 0o664)
    assert find(inner).table == {"processes": 3}
    os.chown(path, 0, pwd.getpwnam("nobody").pw_gid)
    assert "is writable by the group" in find(inner).ignored[0]


@pytest.mark.parametrize("mark", [".git", ".hg", ".svn"])
def test_the_root_of_a_project_is_the_last_that_is_looked_at(inner: Path, mark: str) -> None:
    put(inner.parent.parent)
    (inner / mark).mkdir()
    assert find(inner).origin == ""
    put(inner)
    assert find(inner).table == {"processes": 3}


def test_so_is_the_home_directory(inner: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(inner.parent.parent)
    monkeypatch.setenv("HOME", str(inner.parent))
    assert find(inner).origin == ""


def test_a_pipe_does_not_hang_the_command(inner: Path) -> None:
    os.mkfifo(inner / "pyproject.toml")
    assert find(inner).table == {}


def test_check_and_the_refusal_name_what_is_ignored_and_run_nothing_of_it(command: Command, folder: Path) -> None:
    (folder / "pyproject.toml").write_text('[tool.qworker]\napp = "planted:app"\n')
    (folder / "planted.py").write_text("open('loot', 'w').close()\nfrom qworker import App\napp = App()")
    folder.chmod(0o1777)
    done = command("check")
    assert done.exit_code == 78
    assert "its directory is writable by everyone" in " ".join(done.output.split())
    for words in (("queues",), ("jobs", "list"), ("workers",)):
        assert command(*words).exit_code == 0
    assert "is ignored: its directory" in command("enqueue", "send").output
    assert not (folder / "loot").exists()


def test_a_broken_application_keeps_nobody_from_looking(command: Command, folder: Path) -> None:
    (folder / "pyproject.toml").write_text('[tool.qworker]\napp = "broken:app"\n')
    (folder / "broken.py").write_text("raise RuntimeError('no')\n")
    for words in (("queues",), ("jobs", "list"), ("workers",)):
        assert command(*words).exit_code == 0
        assert command("--app", "broken:app", *words).exit_code == 78
    assert command("check").exit_code == 78
