"""Temporary folders that crashes do not accumulate."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qworkerd.embedded import tempdir
from qworkerd.embedded.tempdir import TempDir

HOLD_LOCK = "import fcntl, sys; fcntl.flock(int(sys.argv[1]), fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"


def abandoned(base: Path) -> Path:
    folder = base / f"{tempdir.PREFIX}left"
    (folder / "data").mkdir(parents=True)
    (folder / "lock").touch()
    return folder


def test_a_folder_nobody_uses_is_swept(tmp_path: Path) -> None:
    folder = abandoned(tmp_path)
    new_folder = TempDir(tmp_path)
    assert not folder.exists()
    assert new_folder.path.is_dir()
    new_folder.remove()
    new_folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    first, second = TempDir(tmp_path), TempDir(tmp_path)
    assert first.path.is_dir()
    first.remove()
    second.remove()


def test_a_folder_is_in_use_while_a_process_holds_its_claim(tmp_path: Path) -> None:
    mine = TempDir(tmp_path)
    with mine.lock(seconds=0) as fd:
        command = [sys.executable, "-c", HOLD_LOCK, str(fd)]
        heir = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(fd,))
    with heir:
        assert heir.stdout
        heir.stdout.readline()
        with pytest.raises(TimeoutError, match="have not ended within 0 s"), mine.lock(seconds=0):
            pass
        os.close(mine._fd)  # as if the maker had died
        tempdir.remove_abandoned(tmp_path)
        assert mine.path.is_dir()
    tempdir.remove_abandoned(tmp_path)
    assert not mine.path.exists()


def test_only_folders_of_ours_are_swept(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / f"{tempdir.PREFIX}link").symlink_to(elsewhere)
    (tmp_path / f"{tempdir.PREFIX}file").touch()
    (tmp_path / "other").mkdir()
    before = sorted(tmp_path.iterdir())
    tempdir.remove_abandoned(tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_it_is_private_unless_shared(tmp_path: Path) -> None:
    private, shared = TempDir(tmp_path), TempDir(tmp_path, shared=True)
    assert private.path.stat().st_mode & 0o777 == 0o700
    assert shared.path.stat().st_mode & 0o777 == 0o711
    private.remove()
    shared.remove()
