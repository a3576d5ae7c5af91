"""The fields of a form for a task's arguments, made from their JSON schema or from the annotations of the function."""

import json
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from inspect import Parameter
from typing import Annotated, Any, Literal, Union, get_args, get_origin

#: Objects are split into a field for each of their parts down to this depth, if they have at most this many.
MAX_DEPTH, MAX_PARTS = 3, 20
#: A choice with more values is a field for text.
MAX_CHOICES = 50
#: Characters of a default that is shown.
MAX_DEFAULT = 2_000


class Kind(StrEnum):
    """What a field holds, and how its text is read."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    #: One of `choices`, written as JSON.
    CHOICE = "choice"
    #: Text in the formats of JSON schema: 2026-01-31, 09:00:00, 2026-01-31T09:00:00Z.
    DATE = "date"
    TIME = "time"
    DATETIME = "date-time"
    #: Any JSON value.
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Field:
    """One field. Its text is read as `kind` says; an empty one is left out, or None."""

    #: The parameter, or the path of a part of it: "order.lines". Those that take the rest are "*args" and "**kwargs".
    name: str
    kind: Kind
    #: Whether a text has to be given.
    required: bool = False
    #: Whether None is a value.
    nullable: bool = False
    #: The text of the default; empty if there is none, or if it is None.
    default: str = ""
    #: Whether there is a default that applies if the text is empty.
    has_default: bool = False
    #: The values of a choice, each as JSON and as it is shown.
    choices: tuple[tuple[str, str], ...] = ()
    #: The type in the words of the signature or schema: "int", "array of string".
    type: str = ""
    #: What the task says about it.
    description: str = ""
    #: The limits of a number.
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class Schema:
    """A JSON schema with the definitions that it refers to."""

    root: Mapping[str, Any]

    def resolve(self, part: Any) -> dict[str, Any]:
        """Return a part without its reference; an empty one, which allows everything, if it cannot be read."""
        found = part if isinstance(part, dict) else {}
        for _ in range(MAX_DEPTH):
            name = found.get("$ref")
            if not isinstance(name, str):
                return found
            definitions = self.root.get("$defs")
            target = definitions.get(name.rpartition("/")[2]) if isinstance(definitions, dict) else None
            rest = {key: value for key, value in found.items() if key != "$ref"}
            found = {**target, **rest} if isinstance(target, dict) else {}
        return {}

    def fields(self, part: Any = None, path: str = "", depth: int = 0) -> Iterator[Field]:
        """Yield the fields of an object."""
        found = self.resolve(self.root if part is None else part)
        required = found.get("required", ())
        for name, inner in found.get("properties", {}).items():
            yield from self._field(f"{path}{name}", self.resolve(inner), required=name in required, depth=depth)

    def _field(self, name: str, part: dict[str, Any], *, required: bool, depth: int) -> Iterator[Field]:
        if required and self._is_split(part) and depth < MAX_DEPTH:
            yield from self.fields(part, f"{name}.", depth + 1)
        else:
            yield field_of(name, part, self, required=required)

    def _is_split(self, part: dict[str, Any]) -> bool:
        names = part.get("properties")
        return (
            isinstance(names, dict)
            and 0 < len(names) <= MAX_PARTS
            and not any("." in name for name in names)
            and part.get("additionalProperties", False) is False
        )


def field_of(name: str, part: dict[str, Any], schema: Schema, *, required: bool) -> Field:
    """Return the field of a value with this schema."""
    inner, nullable = _without_null(part, schema)
    kind, choices = _kind(inner)
    has_default = "default" in part
    if kind is Kind.CHOICE and has_default and part["default"] is not None:
        default = json.dumps(part["default"])
    else:
        default = text_of(part.get("default"), kind)
    return Field(
        name, kind, required and not nullable, nullable, default, has_default or not required, choices,
        _words(inner, schema) + (" or null" if nullable else ""), str(part.get("description") or ""),
        _number(inner.get("minimum")), _number(inner.get("maximum")),
    )  # fmt: skip


def text_of(value: Any, kind: Kind) -> str:
    """Return the text of a JSON value in a field."""
    if value is None:
        return ""
    if isinstance(value, str) and kind is not Kind.JSON:
        return value
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return ""
    return text if len(text) <= MAX_DEFAULT else ""


def schema_of(parameter: Parameter, hint: Any) -> dict[str, Any]:
    """Return the JSON schema of a parameter of a task that is not typed; that of an unknown type allows everything."""
    found = _of_hint(hint)
    if parameter.default is not Parameter.empty:
        found["default"] = parameter.default
    return found


def _of_hint(hint: Any) -> dict[str, Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _of_hint(arguments[0])
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_of_hint(argument) for argument in arguments]}
    name = _TYPES.get(origin or hint)
    words = hint.__name__ if isinstance(hint, type) and not arguments else str(hint)
    known = {"title_of_type": "" if hint is Parameter.empty else words.replace("typing.", "")}
    return known | ({"type": name} if name else {})


_TYPES: dict[Any, str] = {
    int: "integer", float: "number", bool: "boolean", str: "string", list: "array", tuple: "array", dict: "object",
    type(None): "null", None: "null",
}  # fmt: skip
_FORMATS = {"date": Kind.DATE, "time": Kind.TIME, "date-time": Kind.DATETIME}


def _without_null(part: dict[str, Any], schema: Schema) -> tuple[dict[str, Any], bool]:
    """Return the schema of a value that is not null, and whether it may be null."""
    members = part.get("anyOf")
    if not isinstance(members, list):
        return part, part.get("type") == "null"
    resolved = [schema.resolve(member) for member in members]
    rest = [member for member in resolved if member.get("type") != "null"]
    nullable = len(rest) < len(resolved)
    if len(rest) == 1:
        return rest[0], nullable
    # So pydantic describes a Decimal. The digits of a string are exact.
    if {member.get("type") for member in rest} == {"number", "string"}:
        return {"type": "string", "title_of_type": "number or string"}, nullable
    return {"anyOf": rest}, nullable


def _kind(part: dict[str, Any]) -> tuple[Kind, tuple[tuple[str, str], ...]]:
    values = [part["const"]] if "const" in part else part.get("enum")
    if part.get("type") == "boolean":
        return Kind.CHOICE, (("true", "yes"), ("false", "no"))
    if isinstance(values, list) and 0 < len(values) <= MAX_CHOICES:
        try:
            return Kind.CHOICE, tuple((json.dumps(value), str(value)) for value in values)
        except TypeError:  # such as bytes or a member of an enumeration
            return Kind.JSON, ()
    known = {"integer": Kind.INTEGER, "number": Kind.NUMBER}
    if part.get("type") == "string":
        return _FORMATS.get(str(part.get("format")), Kind.TEXT), ()
    return known.get(str(part.get("type")), Kind.JSON), ()


def _words(part: dict[str, Any], schema: Schema) -> str:
    """Return a type in words."""
    if "title_of_type" in part:
        return str(part["title_of_type"])
    members = part.get("anyOf") or part.get("oneOf")
    if isinstance(members, list):
        return " or ".join(dict.fromkeys(_words(schema.resolve(member), schema) for member in members)) or "any"
    if "enum" in part or "const" in part:
        return "choice"
    kind = str(part.get("type") or "any")
    if kind == "array" and isinstance(part.get("items"), dict):
        return f"array of {_words(schema.resolve(part['items']), schema)}"
    if kind == "object" and isinstance(part.get("properties"), dict):
        return f"object with {', '.join(part['properties'])}"
    return str(part["format"]) if kind == "string" and part.get("format") else kind


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
