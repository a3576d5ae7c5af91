"""The codec of typed tasks: a pydantic model of each signature. Only applications with typed tasks import it."""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from inspect import Parameter, Signature, signature
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, ValidationError, create_model
from pydantic_core import PydanticSerializationError, PydanticUndefined

from qworker.errors import ConfigurationError, InvalidPayload

#: Bytes are base64 in JSON: as UTF-8, pydantic's default, not every value could be stored.
#: An instance of a dataclass may have been changed, or created with anything: it is validated like a dict.
_CONFIG = ConfigDict(extra="forbid", ser_json_bytes="base64", val_json_bytes="base64", revalidate_instances="always")


class PydanticCodec:
    """Validates strictly: no number is accepted for a string. From JSON, strings are accepted for dates and UUIDs."""

    def __init__(self, call: Callable[..., Any], name: str) -> None:
        try:
            resolved = _resolve(call)
            parameters = {p.name: (p.annotation, p.default) for p in resolved.parameters.values()}
            self._arguments = _Model(name, "args", parameters)
            answer = resolved.return_annotation
            untyped = answer in (Signature.empty, None, type(None), Any)
            self._result = None if untyped else _Model(name, "", {"result": (answer, Parameter.empty)})
        except (PydanticUserError, NameError, TypeError) as error:
            raise ConfigurationError(f"{name}: its annotations cannot be used: {error}") from error

    def dump(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments as JSON values."""
        return self._arguments.dump(args)

    def load(self, text: str) -> dict[str, Any]:
        """Return the arguments of JSON text."""
        return self._arguments.load(text)

    def dump_result(self, result: Any) -> Any:
        """Return a result as a JSON value."""
        return result if self._result is None else self._result.dump({"result": result})["result"]

    def load_result(self, result: Any) -> Any:
        """Return the result of a JSON value."""
        return result if self._result is None else self._result.load(json.dumps({"result": result}))["result"]

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of the arguments."""
        return self._arguments.schema()


def _resolve(call: Callable[..., Any]) -> Signature:
    """Return a signature whose annotations are types; that of a class returns what its method `handle` returns."""
    if not isinstance(call, type):
        return signature(call, eval_str=True)
    hints = get_type_hints(call, include_extras=True)
    found = signature(call)
    typed = [p.replace(annotation=hints.get(p.name, p.annotation)) for p in found.parameters.values()]
    answer = signature(call.handle, eval_str=True).return_annotation  # type: ignore[attr-defined] # a class task
    return found.replace(parameters=typed, return_annotation=answer)


class _Model:
    """A model with a field for each name; any name is possible, because it is only the alias of its field."""

    def __init__(self, task: str, root: str, named: Mapping[str, tuple[Any, Any]]) -> None:
        self._task, self._root = task, root
        self._names = {f"p{number}": name for number, name in enumerate(named)}
        defined: dict[str, Any] = {}
        for field, (kind, default) in zip(self._names, named.values(), strict=True):
            name = self._names[field]
            value = PydanticUndefined if default is Parameter.empty else default
            defined[field] = (kind, Field(default=value, alias=name, title=name))
        self._model: type[BaseModel] = create_model(task, __config__=_CONFIG, **defined)
        self._validator, self._serializer = self._model.__pydantic_validator__, self._model.__pydantic_serializer__

    def dump(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return values as JSON values. They are read again, so that the worker accepts what is stored."""
        try:
            valid = self._validator.validate_python(dict(values), strict=True)
            stored: dict[str, Any] = self._serializer.to_python(
                valid, mode="json", by_alias=True, include=valid.__pydantic_fields_set__, warnings="error"
            )
            again = self._validator.validate_json(json.dumps(stored), strict=True)
        except ValidationError as error:
            raise self._invalid(error, values) from None
        except (PydanticSerializationError, UnicodeError) as error:
            raise self._explain(values, error) from None
        if again != valid and (changed := list(self._changed(valid, again))):
            raise InvalidPayload(self._task, changed)
        return stored

    def load(self, text: str) -> dict[str, Any]:
        """Return the values of JSON text by name, without defaults."""
        try:
            valid = self._validator.validate_json(text, strict=True)
        except ValidationError as error:
            raise self._invalid(error, _decoded(text)) from None
        return self._given(valid)

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a default that is not JSON is left out
            return self._model.model_json_schema()

    def _given(self, valid: BaseModel) -> dict[str, Any]:
        given, held = valid.__pydantic_fields_set__, vars(valid)
        return {name: held[field] for field, name in self._names.items() if field in given}

    def _path(self, name: str) -> str:
        return f"{self._root}.{name}" if self._root else name

    def _invalid(self, error: ValidationError, values: Any) -> InvalidPayload:
        """Collect the errors of a path: pydantic reports one for each member of a union."""
        problems: dict[str, list[str]] = {}
        for found in error.errors(include_url=False, include_context=False, include_input=False):
            path = self._root + _path(found["loc"], values, exists=found["type"] != "missing")
            messages = problems.setdefault(path.removeprefix("."), [])
            if found["msg"] not in messages:
                messages.append(found["msg"])
        return InvalidPayload(self._task, [(path, ", or: ".join(messages)) for path, messages in problems.items()])

    def _explain(self, values: Mapping[str, Any], error: Exception) -> InvalidPayload:
        """Find the values that cannot be converted to JSON: the serializer names no path."""
        problems = []
        for name in values:
            part = self._model.model_construct(_fields_set={field for field, n in self._names.items() if n == name})
            vars(part).update({field: values[n] for field, n in self._names.items() if n == name})
            try:
                self._serializer.to_python(part, mode="json", by_alias=True, exclude_unset=True, warnings="error")
            except (PydanticSerializationError, UnicodeError) as reason:
                problems.append((self._path(name), f"cannot be converted to JSON: {' '.join(str(reason).split())}"))
        return InvalidPayload(self._task, problems or [(self._root or "result", str(error))])

    def _changed(self, valid: BaseModel, again: BaseModel) -> Iterator[tuple[str, str]]:
        before, after = self._given(valid), self._given(again)
        for name, value in before.items():
            for path, one, other in _differences(self._path(name), value, after.get(name)):
                kinds = f"a {type(one).__qualname__} would be read as a {type(other).__qualname__}"
                yield path, f"{kinds}: annotate one type, or a union whose members differ in JSON"


def _differences(path: str, one: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the parts that have changed their type; a type without __eq__ is equal to nothing, and no change."""
    if type(one) is not type(other):
        yield path, one, other
    elif isinstance(one, Mapping):
        for key in one:
            yield from _differences(f"{path}.{key}", one[key], other.get(key))
    elif isinstance(one, Sequence) and not isinstance(one, str | bytes | bytearray):
        for at, (item, twin) in enumerate(zip(one, other, strict=False)):
            yield from _differences(f"{path}[{at}]", item, twin)
    elif isinstance(one, BaseModel) or is_dataclass(one):
        names = type(one).model_fields if isinstance(one, BaseModel) else [field.name for field in fields(one)]
        for name in names:
            yield from _differences(f"{path}.{name}", getattr(one, name, None), getattr(other, name, None))


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


_NOTHING: Any = object()


def _path(location: Sequence[int | str], value: Any, *, exists: bool) -> str:
    """Return the path of an error's location; what is not in the value is the label of a union's member."""
    path = ""
    for at, part in enumerate(location):
        inner = _inner(value, part)
        if part == "[key]":
            path += " (key)"
        elif isinstance(part, int):
            path += f"[{part}]"
        elif inner is not _NOTHING or (not exists and at == len(location) - 1):
            path += f".{part}"
        value = value if inner is _NOTHING else inner
    return path


def _inner(value: Any, part: int | str) -> Any:
    if isinstance(value, Mapping):
        return value.get(part, _NOTHING)
    if isinstance(part, str):
        return getattr(value, part, _NOTHING) if isinstance(value, BaseModel) or is_dataclass(value) else _NOTHING
    return value[part] if isinstance(value, list | tuple) and part < len(value) else _NOTHING
