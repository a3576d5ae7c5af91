"""Refuse an application that has replaced Python's blocking functions by those of gevent or eventlet."""

import os
import queue
import select
import signal
import socket
import subprocess
import threading
import time
from typing import Any, Final

from qworker.errors import ConfigurationError

_MODULES: Final = (os, queue, select, signal, socket, subprocess, threading, time)
_LIBRARIES: Final = ("gevent", "eventlet")


def refuse_patches() -> None:
    """Raise ConfigurationError if importing the application has patched the standard library.

    A worker forks, waits in its main thread for signals, and writes outcomes in a second thread. None of this works
    with cooperative threads: each process would die as soon as it has started.
    """
    found = [
        (library, f"{module.__name__}.{name}")
        for module in _MODULES
        for name, value in sorted(vars(module).items())
        if (library := _library(value)) is not None
    ]
    if found:
        (library, _), *_ = found
        names = ", ".join(name for _, name in found[:3])
        raise ConfigurationError(
            f"importing the application has patched the standard library for {library} ({names}): a worker needs the "
            f"threads of the operating system, and does not work with cooperative ones. Apply the patches of {library} "
            "in the program that serves requests, not in a module that the application imports. If many jobs wait for "
            "I/O, increase --processes"
        )


def _library(value: Any) -> str | None:
    module = getattr(value, "__module__", None)
    library = module.partition(".")[0] if isinstance(module, str) else None
    return library if library in _LIBRARIES else None
