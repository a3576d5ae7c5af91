"""Converts the arguments and results of a typed task to and from JSON, and upgrades stored arguments of older code."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from inspect import Parameter, signature
from typing import Any, Protocol, TypeAlias

from qworker.errors import ConfigurationError, InvalidPayload, StoredPayloadInvalid
from qworker.payload import POSITIONAL, Parameters, Row

#: `upgrade(args)` returns the arguments, by name, that the task takes now; args are those that are stored, decoded.
Upgrade: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]


class Codec(Protocol):
    """Converts for one task; a codec of pydantic is made for `typed=True`.

    Each method raises InvalidPayload with all problems if a value does not fit.
    """

    def dump(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Validate arguments, by name, and return them as JSON values that `load` accepts."""

    def load(self, text: str) -> dict[str, Any]:
        """Return the arguments, by name, of the JSON text of an object."""

    def dump_result(self, result: Any) -> Any:
        """Validate what the handler has returned, and return it as a JSON value."""

    def load_result(self, result: Any) -> Any:
        """Return the result of a JSON value."""

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of the arguments."""


#: `factory(function, name)` makes the codec of a task; it is called at the first use, when all types are defined.
CodecFactory: TypeAlias = Callable[[Callable[..., Any], str], Codec]


class Conversion:
    """The conversion of one task that is typed or has an upgrade."""

    def __init__(self, call: Callable[..., Any], name: str, typed: bool | CodecFactory) -> None:
        self._call = call
        self._name = name
        self._factory = typed
        #: Adapts the stored arguments of older code.
        self.upgrade: Upgrade | None = None
        parameters = signature(call).parameters.values()
        self._positional = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
        self._by_name = all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in parameters)
        if typed:
            self._check(list(parameters))

    def _check(self, parameters: Sequence[Parameter]) -> None:
        if not self._by_name:
            raise ConfigurationError(f"{self._name}: a typed task takes arguments by name: no *args, **kwargs or /")
        if bare := [p.name for p in parameters if p.annotation is p.empty]:
            raise ConfigurationError(
                f"{self._name}: a typed task needs the type of {', '.join(bare)}: annotate it, if need be with Any, or "
                "declare the task with typed=False"
            )
        if self._factory is True and find_spec("pydantic") is None:
            raise ConfigurationError(
                f"{self._name}: typed tasks need pydantic: pip install 'pgqworker[pydantic]', or pass a codec factory"
            )

    @cached_property
    def codec(self) -> Codec | None:
        """The codec; None if the task is not typed. Raises ConfigurationError if its annotations cannot be used."""
        if not self._factory:
            return None
        if self._factory is not True:
            return self._factory(self._call, self._name)
        # Importing pydantic takes time and memory; only applications with typed tasks need it.
        from qworker.typed import PydanticCodec

        return PydanticCodec(self._call, self._name)

    def load(self, text: str) -> dict[str, Any]:
        """Return the arguments of the handler for those that are stored; raises StoredPayloadInvalid."""
        # jsonb sorts keys by length, then by bytes: "*" comes first.
        if self.upgrade is not None or (self.codec is not None and text.startswith('{"*"')):
            text = self._upgraded(json.loads(text))
        if self.codec is None:
            arguments: dict[str, Any] = json.loads(text)
            return arguments
        try:
            return self.codec.load(text)
        except InvalidPayload as error:
            raise StoredPayloadInvalid(error.what, error.problems) from None

    def _upgraded(self, args: dict[str, Any]) -> str:
        if self._by_name:
            positional = args.pop(POSITIONAL, ())
            if len(positional) > len(self._positional):
                problem = f"{len(positional)} values, more than the {len(self._positional)} parameters"
                raise StoredPayloadInvalid(self._name, [("args", problem)])
            args |= dict(zip(self._positional, positional, strict=False))
        if self.upgrade is not None:
            upgraded: Any = self.upgrade(args)
            if not isinstance(upgraded, dict):
                raise TypeError(f"the upgrade of {self._name} must return the arguments as a dict, not {upgraded!r}")
            args = upgraded
        return json.dumps(args)

    def dump_result(self, result: Any) -> Any:
        """Return a result as a JSON value; raises InvalidPayload."""
        return result if self.codec is None else self.codec.dump_result(result)

    def load_result(self, result: Any) -> Any:
        """Return the result of a JSON value; raises InvalidPayload."""
        return result if self.codec is None else self.codec.load_result(result)


class TypedParameters(Parameters):
    """The parameters of a typed task: binding validates the arguments and returns them as JSON values."""

    def __init__(self, call: Callable[..., Any], name: str, conversion: Conversion) -> None:
        super().__init__(call, name)
        self._conversion = conversion

    def bind_plain(self, row: Row) -> None:
        """Return None: validating may call the caller's code."""

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments as they are stored; raises InvalidPayload, and TypeError if some were given twice."""
        names = self.positional[: len(args)]
        if len(args) > len(names) or not kwargs.keys().isdisjoint(names):
            return super().bind(args, kwargs)  # raises
        codec = self._conversion.codec
        assert codec is not None  # noqa: S101 - or the task would not be typed
        return codec.dump(dict(zip(names, args, strict=True)) | dict(kwargs))
