"""Finds where in the application's code an error was raised."""

import re
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import FrameType

import qworker
import qworkerd

#: Maximum length of a frame's name (characters), and maximum nesting of exception groups.
MAX_LENGTH, MAX_DEPTH = 200, 100

_OURS = tuple(f"{Path(package.__file__).parent}/" for package in (qworker, qworkerd) if package.__file__)
_STANDARD_LIBRARY = tuple(f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib"))
_INSTALLED = re.compile(r"/(?:site|dist)-packages/")
#: Python 3.12 runs comprehensions in the frame of their function.
_COMPREHENSION = re.compile(r"(?:\.<locals>\.|\A)<(?:list|set|dict)comp>|(?:\.<locals>\.|\A)<genexpr>")


def cause_of(error: BaseException) -> BaseException:
    """Return the first exception of an exception group that is not a group; the error itself if it is not one."""
    for _ in range(MAX_DEPTH):
        if not isinstance(error, BaseExceptionGroup) or not error.exceptions:
            break
        error = error.exceptions[0]
    return error


def frame_of(error: BaseException) -> str | None:
    """Return the innermost frame of the application in a traceback as `module:function`; never raises an error.

    There is no line number, because each deployment moves it. Frames of the standard library and of installed packages
    do not count, except those of the package that contains the handler. If there are no others, the innermost frame is
    returned.
    """
    try:
        found = [(frame.f_code.co_filename, _module(frame), frame.f_code.co_qualname) for frame in _frames(error)]
    except BaseException:  # noqa: BLE001 - an application's class may have redefined __traceback__
        return None
    if not found:
        return None
    handler = found[0][1].partition(".")[0]
    own = [entry for entry in found if not _is_library(entry[0]) or entry[1].partition(".")[0] == handler]
    _, module, function = (own or found)[-1]
    return f"{module}:{_COMPREHENSION.sub('', function) or function}"[:MAX_LENGTH]


def _frames(error: BaseException) -> Iterator[FrameType]:
    entry = error.__traceback__
    while entry is not None:
        if not entry.tb_frame.f_code.co_filename.startswith(_OURS):
            yield entry.tb_frame
        entry = entry.tb_next


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__") or "?")


@lru_cache(maxsize=4096)
def _is_library(path: str) -> bool:
    return path.startswith("<") or bool(_INSTALLED.search(path)) or path.startswith(_STANDARD_LIBRARY)
