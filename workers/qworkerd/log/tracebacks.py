"""Format exceptions as strings of bounded size, even if their methods raise."""

import traceback

#: An error with more exceptions in its groups and causes, or with longer messages, is shown without its causes, with
#: the first exceptions of its group, and with each message cut (exceptions, characters, exceptions, characters).
_MOST, _LONGEST, _SHOWN, _CUT = 200, 65_536, 15, 2_000


def format_error(error: BaseException, frames: int | None = None) -> str:
    """Return the traceback, causes and groups included; an error that cannot be shown in full is shown in part.

    frames limits those of each traceback, as in the module traceback: negative for the last ones.

    Never raises: `__str__`, the attributes of a SyntaxError or a metaclass may be the application's, and broken.
    """
    try:
        if _is_modest(error):
            return "".join(traceback.format_exception(type(error), error, error.__traceback__, limit=frames))
    except BaseException:  # noqa: BLE001, S110 - SystemExit in somebody's __str__ ends neither a worker nor a log call
        pass
    return _in_part(error, frames)


def message_of(error: BaseException) -> str:
    """Return str(error), or why there is none; never raises."""
    try:
        return str.__str__(str(error))
    except BaseException as broken:  # noqa: BLE001 - a handler's exception may be broken as well
        return f"(its message could not be made: {type.__getattribute__(type(broken), '__name__')})"


def name_of(kind: type) -> str:
    """Return the dotted name of a class of errors, without the module of built-in ones; never raises."""
    # As `type` tells it: a metaclass may have something else to say, or raise.
    name = type.__getattribute__(kind, "__qualname__")
    try:
        module = f"{kind.__module__}."
    except BaseException:  # noqa: BLE001 - the module is whatever the class says
        module = ""
    return f"{module.removeprefix('builtins.')}{name}"


def _is_modest(error: BaseException) -> bool:
    """Tell whether the standard library can be trusted to show it: it makes everything before anything is cut."""
    waiting, seen, size = [error], {id(error)}, 0
    while waiting:
        found = waiting.pop()
        size += sum(len(part) for part in found.args if isinstance(part, str | bytes))
        notes = getattr(found, "__notes__", ())
        size += sum(len(note) for note in notes if isinstance(note, str)) if isinstance(notes, list) else 0
        parts = [found.__cause__, found.__context__]
        if isinstance(found, BaseExceptionGroup):
            if len(found.exceptions) > _MOST:
                return False
            parts += found.exceptions
        new = [part for part in parts if part is not None and id(part) not in seen]
        seen.update(map(id, new))
        waiting += new
        if size > _LONGEST or len(seen) > _MOST or len(message_of(found)) > _LONGEST:
            return False
    return True


def _in_part(error: BaseException, limit: int | None) -> str:
    """Return the error itself: its frames, its name, and the beginning of its message."""
    try:
        frames = "Traceback (most recent call last):\n" + "".join(traceback.format_tb(error.__traceback__, limit))
    except BaseException:  # noqa: BLE001 - as above
        frames = "(its frames could not be shown)\n"
    lines = [frames + _line(error)]
    try:
        if isinstance(error, BaseExceptionGroup):
            lines += [f"  {_line(part)}" for part in error.exceptions[:_SHOWN]]
            if len(error.exceptions) > _SHOWN:
                lines.append(f"  and {len(error.exceptions) - _SHOWN:,} more")
    except BaseException:  # noqa: BLE001, S110 - as above
        pass
    return "\n".join(lines) + "\n"


def _line(error: BaseException) -> str:
    message = message_of(error)
    cut = f" … ({len(message):,} characters)" if len(message) > _CUT else ""
    return f"{name_of(type(error))}: {message[:_CUT]}{cut}"
