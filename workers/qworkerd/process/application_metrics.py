"""Metrics of the application in its handlers: the files of prometheus_client, bounded by the seats of a node.

In its mode for several processes, prometheus_client keeps the values of each process in files that are named after its
pid, and remain when it has ended. Here they are named after the seat, and the replacement of a worker continues them.
"""

import atexit
import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

_seat = "supervisor"
#: The folder, if it is ours, and a descriptor that keeps a lock on it.
_created: tuple[str, int] | None = None


def prepare() -> None:
    """Let prometheus_client keep its values in files. Call this before the application is imported.

    Does nothing if the package is missing, or if the operator has set the variable.
    """
    if os.environ.get(VARIABLE) or find_spec("prometheus_client") is None:
        return
    folder = tempfile.mkdtemp(prefix="qworker-metrics-")
    # systemd-tmpfiles(8) deletes what is old in /tmp, but nothing in a directory that is locked.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    global _created  # noqa: PLW0603 - as the variable of the environment, one for the process
    _created = folder, descriptor
    atexit.register(_remove, folder, os.getpid())
    os.environ[VARIABLE] = folder  # before the import, which reads it
    from prometheus_client import values

    values.ValueClass = values.MultiProcessValue(lambda: _seat)  # type: ignore[no-untyped-call]


def set_seat(name: str) -> None:
    """Name the seat of this process, after the fork. The name must not contain an underscore."""
    global _seat  # noqa: PLW0603 - prometheus_client asks for it with each value
    _seat = name
    if _created is not None:
        # If it was deleted nevertheless, each change of a metric would raise an error in its handler.
        with suppress(OSError):
            Path(_created[0]).mkdir(mode=0o700, exist_ok=True)


def folder() -> str | None:
    """Return the folder of the files; None if the application's metrics are not kept."""
    return os.environ.get(VARIABLE) or None


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(path, ignore_errors=True)
