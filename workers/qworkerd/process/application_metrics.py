"""Metrics of the application in its handlers: the files of prometheus_client, bounded by the seats of a node.

In its mode for several processes, prometheus_client keeps the values of each process in files that are named after its
pid, and remain when it has ended. Here they are named after the seat, and the replacement of a worker continues them.
Processes that handlers fork have seats of their own, which the next ones continue: as many as have lived at one time.
"""

import atexit
import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from itertools import count
from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

#: The seat, and the process that has it.
_seat, _owner = "supervisor", 0
#: What is put before the names of seats, if others may use the folder too.
_prefix = ""
#: The folder, if it is ours, and a descriptor that keeps a lock on it.
_created: tuple[str, int] | None = None
#: The file whose bytes are locked by processes that a handler has forked, one for each seat; None if there is none yet.
_forks: int | None = None


def prepare() -> None:
    """Let prometheus_client keep its values in files. Call this before the application is imported.

    Does nothing if the package is missing. A folder that the operator has set is used, and not deleted.
    """
    if find_spec("prometheus_client") is None:
        return
    global _created, _prefix, _owner  # noqa: PLW0603 - as the variable of the environment, one for the process
    _owner = os.getpid()
    if os.environ.get(VARIABLE):
        _prefix = f"qworker-{_owner}-"
    else:
        folder = tempfile.mkdtemp(prefix="qworker-metrics-")
        # systemd-tmpfiles(8) deletes what is old in /tmp, but nothing in a directory that is locked.
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        _created = folder, descriptor
        atexit.register(_remove, folder, _owner)
        os.environ[VARIABLE] = folder  # before the import, which reads it
    from prometheus_client import values

    values.ValueClass = values.MultiProcessValue(seat)  # type: ignore[no-untyped-call]


def set_seat(name: str) -> None:
    """Name the seat of this process, after the fork. The name must not contain an underscore."""
    global _seat, _owner, _forks
    _seat, _owner, _forks = name, os.getpid(), None
    if _created is not None:
        # If it was deleted nevertheless, each change of a metric would raise an error in its handler.
        with suppress(OSError):
            Path(_created[0]).mkdir(mode=0o700, exist_ok=True)
    _delete_live(_prefix + name)


def seat() -> str:
    """Return the name of the seat of this process; prometheus_client puts it into the names of its files."""
    if os.getpid() != _owner:
        _set_fork_seat()
    return _prefix + _seat


def _set_fork_seat() -> None:
    """Name a free seat beside that of the worker, whose handler has forked this process: two would damage a file."""
    global _seat, _owner, _forks  # noqa: PLW0603 - as in set_seat
    worker = _seat.partition(".")[0]
    if _forks is not None:
        os.close(_forks)
    _forks = os.open(
        Path(os.environ[VARIABLE], f"{_prefix}{worker}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    _seat, _owner = f"{worker}.{_lock_first(_forks)}", os.getpid()
    _delete_live(_prefix + _seat)


def _lock_first(descriptor: int) -> int:
    """Lock the first byte of a file that no other process has locked; the kernel releases it when this one ends."""
    for number in count(1):
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except (BlockingIOError, PermissionError):
            continue
        except OSError:  # the filesystem has no locks
            break
        return number
    return os.getpid()


def _delete_live(name: str) -> None:
    """Delete the gauges that count living processes only, of the process that had the seat before."""
    if (path := folder()) is not None:
        for file in Path(path).glob(f"gauge_live*_{name}.db"):
            file.unlink(missing_ok=True)


def folder() -> str | None:
    """Return the folder of the files; None if the application's metrics are not kept."""
    return os.environ.get(VARIABLE) or None


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(path, ignore_errors=True)
