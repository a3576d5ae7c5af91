"""Reject results of handlers that describe work instead of doing it."""

from collections.abc import AsyncGenerator, Awaitable, Coroutine, Generator
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

#: Results of these types are accepted without further checks.
_PLAIN = frozenset({str, int, float, bool})
#: Types of what stands in a list where `asyncio.gather` or a loop is missing.
_UNDONE = frozenset({CoroutineType, GeneratorType, AsyncGeneratorType})


def done(result: Any) -> Any:
    """Return what a handler returned; raises TypeError for a coroutine, an awaitable, a generator, map or filter.

    Also for a list, tuple or dict that holds coroutines or generators.
    """
    kind = type(result)
    if result is None or kind in _PLAIN:
        return result
    if kind is list or kind is tuple or kind is dict:
        parts = result.values() if kind is dict else result
        if not _UNDONE.isdisjoint(map(type, parts)):
            _refuse_all([part for part in parts if type(part) in _UNDONE])
        return result
    return _refuse(result)


def _refuse_all(undone: list[Any]) -> None:
    for part in undone[1:]:
        if not isinstance(part, AsyncGenerator):
            part.close()  # or Python would say of each that it was never awaited
    _refuse(undone[0])


def _refuse(result: Any) -> Any:
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
        result.close()  # or Python warns that it was never awaited
    raise TypeError(f"the handler returned a {kind}{f' ({name})' if name else ''}, and nothing of it ran: {remedy}")
