"""A temporary folder that is locked while in use; creating the next one removes those that crashes left behind.

Two locks mark a folder as used, and the kernel releases both when their processes die: one on the folder, held by its
creator, and one on the file `lock` inside, held by the processes that inherited it (`lock`).
"""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "qworker-pg-"


class TempDir:
    """A new folder under `base`; with `shared`, other accounts may enter it but not list it."""

    def __init__(self, base: Path, *, shared: bool = False) -> None:
        remove_abandoned(base)
        self.path, self._fd = create(base)
        self.path.chmod(0o711 if shared else 0o700)

    @contextmanager
    def lock(self, *, seconds: float) -> Iterator[int]:
        """Lock the file `lock` and yield its descriptor, for the processes that are to inherit it.

        Raises TimeoutError if processes that inherited it earlier still run after `seconds`.
        """
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + seconds
        try:
            while not try_lock(fd):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"processes that use {self.path} have not ended within {seconds:g} s")
                time.sleep(0.01)
            yield fd
        finally:
            os.close(fd)

    def remove(self) -> None:
        """Delete the folder and its contents. Idempotent."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def create(base: Path) -> tuple[Path, int]:
    """Create a locked folder under `base`; return it and the descriptor that holds the lock."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        with suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            # If another process runs `remove_abandoned` meanwhile, it holds the lock or has deleted the folder.
            if try_lock(fd) and path.exists():
                return path, fd
            os.close(fd)


def remove_abandoned(base: Path) -> None:
    """Delete the folders under `base` that belong to this user and are not locked by a process."""
    for path in base.glob(f"{PREFIX}*"):
        with suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(fd).st_uid == os.geteuid() and try_lock(fd) and is_unlocked(path / "lock"):
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(fd)


def is_unlocked(path: Path) -> bool:
    """Return whether no process holds the lock on a file, which need not exist."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        return try_lock(fd)
    finally:
        os.close(fd)


def try_lock(fd: int) -> bool:
    """Lock the file of a descriptor without waiting; return whether that succeeded."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
