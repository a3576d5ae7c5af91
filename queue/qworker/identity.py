"""Distinguishes the repeated declaration of a task, by a reload or a notebook cell, from another task of that name."""

import sys
import weakref
from collections.abc import Callable
from functools import partial
from inspect import currentframe
from types import CodeType, FrameType
from typing import Any

from qworker.handlers import code_of, main_module

#: Types whose values are compared directly. Of other values only the type survives a reload.
_PLAIN = (str, int, float, bytes, bool, type(None))
#: Maximum depth to which closures and arguments are compared.
_DEPTH = 8


class Declared:
    """A callable, and the execution of the module that declared it as a task."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call
        frame = _module_frame(currentframe())
        #: Each execution compiles a new code object, which is freed afterwards.
        self.code = None if frame is None else weakref.ref(frame.f_code)
        self.module = None if frame is None else _module_name(frame.f_globals.get("__name__"))

    def redeclares(self, earlier: "Declared") -> bool:
        """Return whether this declaration repeats the earlier one, even if the source was edited in between.

        Within one execution of a module, two callables with the same name conflict unless they are equal including
        their closures: functions created by one decorator or factory share their code but behave differently.
        """
        if self.call is earlier.call or _describe(self.call, exact=True) == _describe(earlier.call, exact=True):
            return True
        if self.module != earlier.module or (self._is_execution_of(earlier) and not self._is_bound_in_its_module()):
            return False
        return bool(_describe(self.call, exact=False) == _describe(earlier.call, exact=False))

    def _is_execution_of(self, earlier: "Declared") -> bool:
        code = self.code and self.code()
        # In a thread there is no module frame, so executions cannot be distinguished.
        return code is None or (earlier.code is not None and earlier.code() is code)

    def _is_bound_in_its_module(self) -> bool:
        """Return whether its module has bound it to its name: a module may declare tasks from a reloaded one."""
        module = getattr(self.call, "__module__", None)
        found: Any = sys.modules.get(str(module))
        for part in getattr(self.call, "__qualname__", "").split("."):
            found = getattr(found, part, None)
        return found is self.call and _module_name(module) != self.module


def _module_frame(frame: FrameType | None) -> FrameType | None:
    """Return the frame of the innermost module that is being executed."""
    # IPython names the code of a cell "<cell line: 1>".
    while frame is not None and not frame.f_code.co_name.startswith(("<module", "<cell")):
        frame = frame.f_back
    return frame


def _module_name(name: Any) -> Any:
    return main_module() if name == "__main__" else name


def _describe(obj: Any, *, exact: bool, depth: int = _DEPTH) -> Any:  # noqa: PLR0911 - one for each kind
    """Return a value that is equal for two callables from the same source.

    exact: compare the code and the identity of the objects in closures. Otherwise functions of a module are compared by
    name, so that an edited function is equal to its earlier version.
    """
    if isinstance(obj, _PLAIN):
        return type(obj), obj
    if depth == 0:
        return id(obj) if exact else type(obj).__qualname__

    def inner(value: Any) -> Any:
        return _describe(value, exact=exact, depth=depth - 1)

    if isinstance(obj, tuple | list):
        return type(obj).__name__, [inner(value) for value in obj]
    if isinstance(obj, partial):
        return "partial", inner(obj.func), inner(obj.args), [(key, inner(obj.keywords[key])) for key in
                                                                 sorted(obj.keywords)]  # fmt: skip
    if isinstance(obj, staticmethod | classmethod):
        return inner(obj.__func__)
    code = code_of(obj)
    if code is not None:
        return _function(obj, code, inner, exact=exact)
    if isinstance(obj, type):
        name = _module_name(obj.__module__), obj.__qualname__
        if not exact and "<" not in obj.__qualname__:
            return name
        own = [(key, inner(value)) for key, value in sorted(vars(obj).items()) if _counts(key, value, exact=exact)]
        return name, own, [inner(base) for base in obj.__bases__ if exact and base is not object]
    return id(obj) if exact else (_module_name(type(obj).__module__), type(obj).__qualname__)


def _counts(key: str, value: Any, *, exact: bool) -> bool:
    """Return whether an attribute distinguishes classes of one factory. After a reload its value may differ."""
    plain = exact and not key.startswith("__") and isinstance(value, (*_PLAIN, tuple, list))
    return plain or code_of(value) is not None


def _function(function: Any, code: CodeType, inner: Callable[[Any], Any], *, exact: bool) -> Any:
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None and not exact:
        return inner(wrapped)  # the decorator may have been edited too
    name = _module_name(function.__module__), function.__qualname__
    if not exact and "<" not in function.__qualname__:
        return name
    cells = [cell.cell_contents if _filled(cell) else None for cell in function.__closure__ or ()]
    return (
        (code, code.co_filename) if exact else (*name, *code.co_freevars),
        [inner(value) for value in (getattr(function, "__self__", None), *cells, *(function.__defaults__ or ()))],
        sorted((key, repr(inner(value))) for key, value in (function.__kwdefaults__ or {}).items()),
    )


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - raises if the cell is empty
    except ValueError:
        return False
    return True
