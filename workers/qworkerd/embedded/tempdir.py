"""A temporary folder that no crash leaves behind for good: locked while in use, swept by the next one made.

Two locks say that it is in use, and the kernel frees both at death, however it comes: one on the folder, held by
whoever made it; one on the file `lock` inside, held by the processes it was handed to (`claim`).
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
    """A fresh folder under `base`; with `shared`, other accounts may pass through it (not list it)."""

    def __init__(self, base: Path, *, shared: bool = False) -> None:
        sweep(base)
        self.path, self._fd = create(base)
        self.path.chmod(0o711 if shared else 0o700)

    @contextmanager
    def claim(self, *, seconds: float) -> Iterator[int]:
        """Lock the file `lock` and yield its descriptor, to be inherited by the processes that will hold the lock.

        Raises TimeoutError when those it was handed to before still run after so many seconds.
        """
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + seconds
        try:
            while not take(fd):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"processes that use {self.path} have not ended within {seconds:g} s")
                time.sleep(0.01)
            yield fd
        finally:
            os.close(fd)

    def remove(self) -> None:
        """Delete the folder with all that is in it. Idempotent."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def create(base: Path) -> tuple[Path, int]:
    """Make a locked folder under `base`; return it and the descriptor that holds the lock."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        with suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            # A sweep may come between mkdtemp and the lock: it then has the lock, or has removed the folder.
            if take(fd) and path.exists():
                return path, fd
            os.close(fd)


def sweep(base: Path) -> None:
    """Delete the folders under `base` that belong to this user and to no living process."""
    for path in base.glob(f"{PREFIX}*"):
        with suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(fd).st_uid == os.geteuid() and take(fd) and vacant(path / "lock"):
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(fd)


def vacant(path: Path) -> bool:
    """Say whether no process holds the lock on a file, which need not exist."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        return take(fd)
    finally:
        os.close(fd)


def take(fd: int) -> bool:
    """Lock what the descriptor is open on, if nobody else has it; say whether that worked."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
