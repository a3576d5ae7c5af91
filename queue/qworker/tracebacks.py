"""Reads the tracebacks that are stored with errors."""

import re
from collections import deque
from typing import Final

_FRAME: Final = re.compile(r'^\s*(?:\|\s*)?File "([^"]*)", line \d+')
#: Files of installed packages, of the standard library and of the interpreter.
_LIBRARY: Final = re.compile(r"/(?:site|dist)-packages/|/lib(?:64)?/python\d[\d.]*/|^<|\.zip/")


def application_part(traceback: str) -> str:
    """Return a traceback without the frames of libraries; the whole traceback if no others remain in it.

    Lines that are no frames stay: the beginning, the messages, and what connects an exception with its cause.
    """
    kept: list[str] = []
    ours, found = True, False
    for line in traceback.splitlines():
        frame = _FRAME.match(line)
        if frame is not None:
            ours = not _LIBRARY.search(frame[1])
            found = found or ours
        elif not line.startswith("    ") and not line.lstrip().startswith("|"):
            ours = True
        if ours:
            kept.append(line)
    return "\n".join(kept) if found else traceback


def innermost_frames(traceback: str, number: int) -> tuple[str, ...]:
    """Return the last frames of the application in a traceback, each with its line of code, the innermost one last."""
    frames: deque[list[str]] = deque(maxlen=number)
    inside = False
    for line in application_part(traceback).splitlines():
        if _FRAME.match(line):
            frames.append([line.strip()])
            inside = True
        elif inside and line.startswith("    "):
            frames[-1].append(line.strip())
        else:
            inside = False
    return tuple("\n".join(lines) for lines in frames)
