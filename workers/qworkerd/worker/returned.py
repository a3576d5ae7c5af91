"""What a handler must not return: work that is described, and not done."""

from collections.abc import AsyncGenerator, Awaitable, Coroutine, Generator
from typing import Any

#: Results of these types are never looked at closer.
_PLAIN = frozenset({str, int, float, bool, list, dict, tuple})


def done(result: Any) -> Any:
    """Return what a handler returned; raises TypeError for a coroutine, an awaitable, a generator, map or filter."""
    if result is None or type(result) in _PLAIN:
        return result
    # The abstract classes look at the type's methods: compiled coroutines and generators (Cython) are known too.
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
        result.close()  # or Python would say that it was never awaited
    raise TypeError(f"the handler returned a {kind}{f' ({name})' if name else ''}, and nothing of it ran: {remedy}")
