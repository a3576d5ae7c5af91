"""The differences between two JSON values, key by key, such as the arguments of two jobs; the work is bounded."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

#: Parts of the values that are visited, differences and equal parts that are kept, and the depth of the paths to them;
#: deeper values are compared as a whole.
MAX_PARTS: Final = 20_000
MAX_KEPT: Final = 200
MAX_DEPTH: Final = 30
#: To this depth equal values are recognized without visiting their parts.
_SHALLOW: Final = 3
_MISSING: Final = object()

#: The names, and indexes of arrays, that lead to a part.
Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """A part that two values do not have in common."""

    path: Path
    #: The part of the first and of the second value; None if it is missing there.
    a: Any
    b: Any
    #: Whether each of them has such a part.
    in_a: bool = True
    in_b: bool = True


@dataclass(frozen=True, slots=True)
class EqualPart:
    """The largest part that two values have in common at a path."""

    path: Path
    value: Any


@dataclass(frozen=True, slots=True)
class Differences:
    """What two values have in common, and what not."""

    #: At most MAX_KEPT, in the order of the first value.
    different: tuple[Difference, ...]
    equal: tuple[EqualPart, ...]
    #: How many there are of each.
    different_count: int
    equal_count: int
    #: Whether all parts were compared; if not, there may be more differences.
    complete: bool

    @property
    def same(self) -> bool:
        """Whether the values are equal."""
        return self.complete and not self.different_count


def differences(a: Any, b: Any) -> Differences:
    """Compare two JSON values. 1 and 1.0 differ, and so do 1 and true; the order of names does not matter."""
    walk = _Walk()
    walk.visit((), a, b)
    return Differences(
        tuple(walk.different[:MAX_KEPT]), tuple(walk.equal[:MAX_KEPT]), len(walk.different), len(walk.equal),
        walk.complete,
    )  # fmt: skip


class _Walk:
    def __init__(self) -> None:
        self.different: list[Difference] = []
        self.equal: list[EqualPart] = []
        self.complete = True
        self._left = MAX_PARTS

    def visit(self, path: Path, a: Any, b: Any) -> bool:
        """Compare two parts; return whether they are equal."""
        self._left -= 1
        before, same = len(self.equal), True
        pairs = None if len(path) >= MAX_DEPTH or (len(path) < _SHALLOW and _identical(a, b)) else _pairs(a, b)
        if pairs is None:
            same = _same(a, b)
            if not same:
                self.different.append(Difference(path, a, b))
        else:
            for name, one, other in pairs:
                if self._left <= 0:
                    self.complete = False
                    return False
                same = self._visit_part((*path, name), one, other) and same
        if same:
            # The parts that are equal are one part: their parent.
            del self.equal[before:]
            self.equal.append(EqualPart(path, a))
        return same

    def _visit_part(self, path: Path, a: Any, b: Any) -> bool:
        if a is not _MISSING and b is not _MISSING:
            return self.visit(path, a, b)
        self._left -= 1
        in_a, in_b = a is not _MISSING, b is not _MISSING
        self.different.append(Difference(path, a if in_a else None, b if in_b else None, in_a, in_b))
        return False


def _pairs(a: Any, b: Any) -> Iterator[tuple[str, Any, Any]] | None:
    """Return the parts of two objects or of two arrays by name; None for other values."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return ((str(name), a.get(name, _MISSING), b.get(name, _MISSING)) for name in dict.fromkeys((*a, *b)))
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        both = zip_longest(a, b, fillvalue=_MISSING)
        return ((str(index), one, other) for index, (one, other) in enumerate(both))
    return None


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, (Mapping, list, tuple)) and isinstance(b, (Mapping, list, tuple)):
        return _identical(a, b)
    return type(a) is type(b) and bool(a == b)


def _identical(a: Any, b: Any) -> bool:
    """Return whether two values are equal, with the types of numbers; Python takes 1, 1.0 and True for equal."""
    return bool(a == b) and json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
