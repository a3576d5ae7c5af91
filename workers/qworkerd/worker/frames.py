"""Removes the frames of qworker from the tracebacks of handlers, so that they show only the application's code."""

import os
from collections import deque
from pathlib import Path
from types import TracebackType

import qworker

_WORKER, _QUEUE = Path(__file__).parent, Path(qworker.__file__).parent
#: The files whose frames are between the worker and a handler, or between a signal and the handler that it interrupts.
INTERNAL_FILES = frozenset(
    str(path)
    for path in (
        *(_WORKER / f"{name}.py" for name in ("execution", "hooks", "interrupts", "returned", "signal_handlers")),
        *(_QUEUE / f"{name}.py" for name in ("codec", "coroutines", "middleware", "task", "typed")),
        Path(os.__file__).parent / "asyncio" / "base_events.py",
    )
)
#: Maximum number of exceptions whose tracebacks are cut.
_MAX_EXCEPTIONS = 100


def cut_frames(error: BaseException) -> None:
    """Remove internal frames from the tracebacks of an error, its causes, contexts and groups; never raises an error.

    If no other frame remains, the last one is kept: qworker has raised the error, or the arguments do not match.
    """
    waiting, seen = deque([error]), {id(error)}
    try:
        while waiting and len(seen) <= _MAX_EXCEPTIONS:
            found = waiting.popleft()
            found.__traceback__ = _without_internal(found.__traceback__)
            parts = [found.__cause__, found.__context__]
            if isinstance(found, BaseExceptionGroup):
                parts += found.exceptions[:_MAX_EXCEPTIONS]
            for part in parts:
                if part is not None and id(part) not in seen:
                    seen.add(id(part))
                    waiting.append(part)
    except BaseException:  # noqa: BLE001, S110 - an application's class may have redefined these attributes
        pass


def _without_internal(first: TracebackType | None) -> TracebackType | None:
    kept: TracebackType | None = None
    last = entry = first
    frames: list[TracebackType] = []
    while entry is not None:
        if entry.tb_frame.f_code.co_filename not in INTERNAL_FILES:
            frames.append(entry)
        last, entry = entry, entry.tb_next
    # New objects: the old ones may be in use by a logger of the application.
    for frame in reversed(frames or ([last] if last is not None else [])):
        kept = TracebackType(kept, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return kept
