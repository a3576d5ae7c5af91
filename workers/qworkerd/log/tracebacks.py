"""Formats exceptions as strings of limited size, even if their methods raise errors."""

import traceback

#: The number of exceptions in the groups and causes of an error, and of characters in their messages, up to which the
#: error is formatted in full.
_MAX_EXCEPTIONS, _MAX_CHARACTERS = 200, 65_536
#: The number of exceptions of a group, and of characters of each message, that are kept of a larger error.
_SHOWN_EXCEPTIONS, _SHOWN_CHARACTERS = 15, 2_000


def format_error(error: BaseException, frames: int | None = None) -> str:
    """Return the traceback with causes and groups. Of an error that is too large or broken, only a part is returned.

    frames: the limit for each traceback, as in the module traceback; a negative number selects the last frames.

    Never raises an error, although `__str__`, an attribute of a SyntaxError or a metaclass of the application may.
    """
    try:
        if _is_small(error):
            return "".join(traceback.format_exception(type(error), error, error.__traceback__, limit=frames))
    except BaseException:  # noqa: BLE001, S110 - SystemExit in a __str__ must not end the worker or a log call
        pass
    return _format_partly(error, frames)


def message_of(error: BaseException) -> str:
    """Return str(error), or the reason why there is none; never raises an error."""
    try:
        return str.__str__(str(error))
    except BaseException as broken:  # noqa: BLE001 - a handler's exception may be broken as well
        return f"(its __str__ raised {type.__getattribute__(type(broken), '__name__')})"


def name_of(kind: type) -> str:
    """Return the dotted name of an error class, without the module of a built-in one; never raises an error."""
    # The method of `type`, because a metaclass may return something else or raise an error.
    name = type.__getattribute__(kind, "__qualname__")
    try:
        module = f"{kind.__module__}."
    except BaseException:  # noqa: BLE001 - __module__ may be anything
        module = ""
    return f"{module.removeprefix('builtins.')}{name}"


def _is_small(error: BaseException) -> bool:
    """Return whether the standard library can format an error in full; it does not limit the size itself."""
    waiting, seen, size = [error], {id(error)}, 0
    while waiting:
        found = waiting.pop()
        size += sum(len(part) for part in found.args if isinstance(part, str | bytes))
        notes = getattr(found, "__notes__", ())
        size += sum(len(note) for note in notes if isinstance(note, str)) if isinstance(notes, list) else 0
        parts = [found.__cause__, found.__context__]
        if isinstance(found, BaseExceptionGroup):
            if len(found.exceptions) > _MAX_EXCEPTIONS:
                return False
            parts += found.exceptions
        new = [part for part in parts if part is not None and id(part) not in seen]
        seen.update(map(id, new))
        waiting += new
        if size > _MAX_CHARACTERS or len(seen) > _MAX_EXCEPTIONS or len(message_of(found)) > _MAX_CHARACTERS:
            return False
    return True


def _format_partly(error: BaseException, limit: int | None) -> str:
    """Return the frames of the error itself, its name, and the beginning of its message."""
    try:
        frames = "Traceback (most recent call last):\n" + "".join(traceback.format_tb(error.__traceback__, limit))
    except BaseException:  # noqa: BLE001 - as above
        frames = "(its frames could not be formatted)\n"
    lines = [frames + _line(error)]
    try:
        if isinstance(error, BaseExceptionGroup):
            lines += [f"  {_line(part)}" for part in error.exceptions[:_SHOWN_EXCEPTIONS]]
            if len(error.exceptions) > _SHOWN_EXCEPTIONS:
                lines.append(f"  and {len(error.exceptions) - _SHOWN_EXCEPTIONS:,} more")
    except BaseException:  # noqa: BLE001, S110 - as above
        pass
    return "\n".join(lines) + "\n"


def _line(error: BaseException) -> str:
    message = message_of(error)
    end = f" … ({len(message):,} characters)" if len(message) > _SHOWN_CHARACTERS else ""
    return f"{name_of(type(error))}: {message[:_SHOWN_CHARACTERS]}{end}"
