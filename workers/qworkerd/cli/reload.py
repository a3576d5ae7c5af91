"""Restart the node of a Django project when its code changes: `manage.py qworker run --reload`."""

import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import click

from qworkerd.process.spawn import command

#: Seconds between two looks at the files, and at the node.
INTERVAL = 0.5
#: Seconds for the node to stop before it is killed: a handler that is being edited may run forever.
STOP_TIMEOUT = 10.0


class _Ended(BaseException):
    """A signal that ends the command."""


def serve() -> int:
    """Run the node in a child process until it exits by itself without an error, or until SIGTERM or Ctrl-C."""
    files = _Files()
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    node = _start()
    code = None
    try:
        while True:
            if (path := files.changed(INTERVAL)) is not None:
                click.echo(f"{path} changed: restarting the node", err=True)
                _stop(node)
                node, code = _start(), None
            elif code is None and (code := node.poll()) is not None:
                if code == 0:
                    return 0
                click.echo(f"the node exited with status {code}: it is started again when a file changes", err=True)
    except _Ended:
        return _stop(node)
    finally:
        if node.poll() is None:
            node.kill()
            node.wait()


class _Files:
    """The Python files of the process and of the project."""

    def __init__(self) -> None:
        from django.apps import apps
        from django.utils import autoreload

        from qworker.contrib.django.discovery import discover

        self._reloader: Any = autoreload.StatReloader()
        # The node reports what is wrong with the modules. check_errors has files with errors watched as well.
        with suppress(Exception):
            autoreload.check_errors(discover)()
        for config in apps.get_app_configs():
            # New files have not been imported here. Those of installed packages do not change.
            if not {"site-packages", "dist-packages"} & set(Path(config.path).parts):
                self._reloader.watch_dir(Path(config.path), "**/*.py")
        autoreload.autoreload_started.send(sender=self._reloader)
        self._known = dict(self._reloader.snapshot_files())

    def changed(self, interval: float) -> Path | None:
        """Wait a moment, and return a file that has changed, appeared or gone since the last call."""
        time.sleep(interval)
        now = dict(self._reloader.snapshot_files())
        different = sorted(path for path, _ in now.items() ^ self._known.items())
        self._known = now
        return different[0] if different else None


def _start() -> subprocess.Popen[bytes]:
    from django.utils import autoreload

    arguments = [word for word in autoreload.get_child_arguments() if word != "--reload"]
    # Not in the terminal's foreground group: Ctrl-C arrives here, and the node gets SIGTERM once.
    return subprocess.Popen(command(arguments), process_group=0)


def _stop(node: subprocess.Popen[bytes]) -> int:
    """Stop the node as a service manager does, and return its status."""
    if node.poll() is None:
        node.terminate()
        try:
            return node.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            node.kill()
    return node.wait()


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise _Ended
