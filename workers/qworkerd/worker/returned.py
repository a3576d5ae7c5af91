"""Rejects results of handlers that have done no work, such as coroutines."""

from collections.abc import AsyncGenerator, Awaitable, Coroutine, Generator
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

#: Results of these types are accepted without further checks.
_PLAIN = frozenset({str, int, float, bool})
#: The types of elements that are rejected in a list: `asyncio.gather` or a loop is missing.
_NOT_RUN = frozenset({CoroutineType, GeneratorType, AsyncGeneratorType})


def check_result(result: Any) -> Any:
    """Return the result of a handler; raises TypeError for a coroutine, an awaitable, a generator, map or filter.

    The same applies to a list, tuple or dict that contains coroutines or generators.
    """
    kind = type(result)
    if result is None or kind in _PLAIN:
        return result
    if kind is list or kind is tuple or kind is dict:
        parts = result.values() if kind is dict else result
        if not _NOT_RUN.isdisjoint(map(type, parts)):
            _reject_all([part for part in parts if type(part) in _NOT_RUN])
        return result
    return _reject(result)


def _reject_all(undone: list[Any]) -> None:
    for part in undone[1:]:
        if not isinstance(part, AsyncGenerator):
            part.close()  # otherwise Python warns about each that it was never awaited
    _reject(undone[0])


def _reject(result: Any) -> Any:
    # The abstract base classes check the type's methods, so that Cython's coroutines and generators are found too.
    match result:
        case Coroutine():
            kind, remedy = "coroutine", "call asyncio.run(...) in the handler"
        case AsyncGenerator() | Awaitable():
            kind, remedy = type(result).__name__, "await it in a coroutine that the handler runs with asyncio.run(...)"
        case Generator() | map() | filter():
            kind, remedy = type(result).__name__, "loop over it in the handler, or return list(...)"
        case _:
            return result
    name = getattr(result, "__qualname__", "")
    if isinstance(result, Coroutine | Generator):
        result.close()  # otherwise Python warns that it was never awaited
    raise TypeError(f"the handler returned a {kind}{f' ({name})' if name else ''}, which has not been run: {remedy}")
