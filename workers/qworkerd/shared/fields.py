"""The fields of shared memory, read and written by name; the hot path indexes the memory itself."""

from typing import Protocol


class Shared(Protocol):
    """Memory of 8-byte fields, as integers and as floats."""

    words: "memoryview[int]"
    floats: "memoryview[float]"


class Field:
    """A field by its number."""

    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        self._number = number


class IntField(Field):
    """A 64-bit integer."""

    __slots__ = ()

    def __get__(self, shared: Shared, owner: type[Shared] | None = None) -> int:
        """Read the field."""
        return shared.words[self._number]

    def __set__(self, shared: Shared, value: int) -> None:
        """Write the field."""
        shared.words[self._number] = value


class BoolField(Field):
    """A flag."""

    __slots__ = ()

    def __get__(self, shared: Shared, owner: type[Shared] | None = None) -> bool:
        """Read the field."""
        return bool(shared.words[self._number])

    def __set__(self, shared: Shared, value: bool) -> None:
        """Write the field."""
        shared.words[self._number] = value


class FloatField(Field):
    """A float: seconds, monotonic unless the field says otherwise."""

    __slots__ = ()

    def __get__(self, shared: Shared, owner: type[Shared] | None = None) -> float:
        """Read the field."""
        return shared.floats[self._number]

    def __set__(self, shared: Shared, value: float) -> None:
        """Write the field."""
        shared.floats[self._number] = value
