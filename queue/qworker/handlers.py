"""What is looked at in a function or class when it becomes a task: its name, where it is written, how it runs."""

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

#: Names in the code of a decorator that runs coroutines itself: asyncio.run, loop.run_until_complete, async_to_sync ...
_RUNS = re.compile("run|sync|loop|await|trio|anyio")


def default_name(call: Any) -> str:
    """Return "module.qualname"; raises ConfigurationError for what is not found in its module under this name.

    All functions that a factory or a decorator makes have the same one.
    """
    module, name = getattr(call, "__module__", None), getattr(call, "__qualname__", None)
    if module is None or name is None:
        raise ConfigurationError(f"{call!r} has no name of its own: give the task one with name=")
    if "<" in name:
        raise ConfigurationError(
            f"{location(call)} has no name of its own, as it is made inside of a function: give the task one with "
            f"name=, "
            "or use functools.wraps in the decorator below"
        )
    return f"{main_module() if module == '__main__' else module}.{name}"


def main_module() -> str:
    """Return the name by which others import `__main__`.

    A script that enqueues its own tasks is `__main__`, while the worker imports it by its name, which is what counts.
    """
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    return str(spec.name) if spec else Path(file).stem if file else "__main__"


def location(call: Any) -> str:
    """Say where a callable is written, for people; of a decorated one the function below."""
    code = code_of(unwrap(call))
    where = f" ({code.co_filename}:{code.co_firstlineno})" if code else ""
    # A wrapper that does not say what it wraps has usually enclosed it.
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
    """Return the code of a function or a method; None for what has none."""
    code = getattr(call, "__code__", None)
    return code if isinstance(code, CodeType) else None


def refuse_asynchronous(call: Callable[..., Any]) -> None:
    """Raise ConfigurationError if a call would return without having done the work.

    It is looked for below decorators that use functools.wraps, in partials and in callable instances. A decorator that
    runs the coroutine makes a plain function of it.
    """
    for layer in _layers(call):
        if iscoroutinefunction(layer) or isasyncgenfunction(layer):
            below = "" if layer is call else (
                "; if a decorator runs it, let the decorator say so: await, run or sync in a name it uses"
            )  # fmt: skip
            raise ConfigurationError(
                f"{location(layer)} is asynchronous; handlers are plain functions: call asyncio.run(...) in one{below}"
            )
        if isgeneratorfunction(layer):
            raise ConfigurationError(
                f"{location(layer)} is a generator: calling it would run nothing; loop inside the handler"
            )


def _layers(call: Any) -> Iterator[Any]:
    """Yield a callable and what it calls in turn, down to the first that runs what it gets."""
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
            yield getattr(type(call), "__call__", None)  # noqa: B004 - it is wanted, and not whether there is one
        elif _RUNS.search(" ".join((*code.co_names, *code.co_freevars))):
            return
        call = getattr(call, "__wrapped__", None)
