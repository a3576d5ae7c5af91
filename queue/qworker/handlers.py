"""Inspects a function or class that becomes a task: its name, its location, and whether it is asynchronous."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, unwrap
from pathlib import Path
from types import CodeType
from typing import Any

from qworker.errors import ConfigurationError

#: Names used by a decorator that runs coroutines itself: asyncio.run, loop.run_until_complete, async_to_sync ...
_RUNS = re.compile("run|sync|loop|await|trio|anyio")


def default_name(call: Any) -> str:
    """Return "module.qualname"; raises ConfigurationError if a module cannot look up the callable by this name.

    All functions that a factory or a decorator creates have the same qualname.
    """
    module, name = getattr(call, "__module__", None), getattr(call, "__qualname__", None)
    if module is None or name is None:
        raise ConfigurationError(f"{call!r} has no qualified name: name the task with name=")
    if "<" in name:
        raise ConfigurationError(
            f"{location(call)} has no unique name because it is defined inside a function: name the task with name=, "
            "or use functools.wraps in the decorator below"
        )
    return f"{main_module() if module == '__main__' else module}.{name}"


def main_module() -> str:
    """Return the name under which other processes import `__main__`.

    A script that enqueues its own tasks runs as `__main__`, but the worker imports it under its module name.
    """
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    return str(spec.name) if spec else Path(file).stem if file else "__main__"


def location(call: Any) -> str:
    """Return a description of where a callable is defined; for a decorated one, where the function itself is."""
    code = code_of(unwrap(call))
    where = f" ({code.co_filename}:{code.co_firstlineno})" if code else ""
    # A wrapper without __wrapped__ usually has the function in its closure.
    enclosed = [] if hasattr(call, "__wrapped__") else _enclosed(call)
    around = f" around {location(enclosed[0])}" if len(enclosed) == 1 else ""
    return f"{getattr(call, '__module__', None)}.{getattr(call, '__qualname__', call)}{where}{around}"


def _enclosed(call: Any) -> list[Any]:
    values = []
    for cell in getattr(call, "__closure__", None) or ():
        with suppress(ValueError):  # it is empty
            values.append(cell.cell_contents)
    return [value for value in values if code_of(value) is not None and value is not call]


def code_of(call: Any) -> CodeType | None:
    """Return the code of a function or method; None for other callables."""
    code = getattr(call, "__code__", None)
    return code if isinstance(code, CodeType) else None


def is_asynchronous(call: Callable[..., Any]) -> bool:
    """Return whether a callable is a coroutine function: declared with `async def`, or marked as one."""
    if isinstance(call, type):
        return False
    method = None if code_of(call) is not None else getattr(type(call), "__call__", None)  # noqa: B004
    return iscoroutinefunction(call) or iscoroutinefunction(method)


def refuse_asynchronous(call: Callable[..., Any]) -> None:
    """Raise ConfigurationError if the callable is a coroutine function or a generator function.

    The search covers decorators that use functools.wraps, partials and callable instances. It stops at a decorator that
    runs the coroutine, because the result is a plain function.
    """
    for layer in _layers(call):
        if iscoroutinefunction(layer) or isasyncgenfunction(layer):
            below = "" if layer is call else (
                "; a decorator that runs it is recognized by await, run or sync in a name that it uses"
            )  # fmt: skip
            raise ConfigurationError(
                f"{location(layer)} is asynchronous, and here nothing awaits it: call asyncio.run(...) in a plain "
                f"function; only the handler of a task may be async def, without a plain decorator above it{below}"
            )
        if isgeneratorfunction(layer):
            raise ConfigurationError(
                f"{location(layer)} is a generator, which does nothing when called: loop inside the handler"
            )


def _layers(call: Any) -> Iterator[Any]:
    """Yield a callable and those it wraps, down to the first that seems to run a coroutine."""
    seen: set[int] = set()
    while call is not None and id(call) not in seen:
        seen.add(id(call))
        yield call
        if isinstance(call, type):
            return
        if isinstance(call, partial):
            call = call.func
            continue
        code = code_of(call)
        if code is None:
            yield getattr(type(call), "__call__", None)  # noqa: B004 - the method is needed, not whether it exists
        elif _RUNS.search(" ".join((*code.co_names, *code.co_freevars))):
            return
        call = getattr(call, "__wrapped__", None)
