"""A form for the arguments of a task: its fields, and the arguments or the problems of what was written into them."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from inspect import Parameter, Signature, signature, unwrap
from typing import Any, get_type_hints

from qworker.codec import Codec
from qworker.errors import InvalidPayload, QworkerError
from qworker.form_fields import Field, Kind, Schema, field_of, schema_of
from qworker.payload import encode
from qworker.task import Task

#: The name of the field that takes all arguments as one JSON object.
WHOLE = "json"
#: Maximum number of characters of a text; more could not be stored.
MAX_TEXT = 1_000_000

_INTEGER = re.compile(r"[+-]?\d{1,4000}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_ERROR = re.compile(r"args(?:\.(?P<path>[^:\[]+)|\[(?P<at>\d+)\])?(?:\[[^:]*)?: (?P<problem>.*)", re.DOTALL)
_READERS = {Kind.DATE: date.fromisoformat, Kind.TIME: time.fromisoformat, Kind.DATETIME: datetime.fromisoformat}


@dataclass(frozen=True, slots=True)
class Submission:
    """What was written into a form."""

    #: The arguments, with which the task can be enqueued if nothing is wrong.
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    #: The problems by the name of the field; those of no field are under an empty name.
    problems: Mapping[str, str] = field(default_factory=dict)
    #: The texts by the name of the field, to be shown again.
    texts: Mapping[str, str] = field(default_factory=dict)

    @property
    def valid(self) -> bool:
        """Whether the task can be enqueued."""
        return not self.problems


class TaskForm:
    """The form of a task. A typed task has the fields of its schema; others those of their annotations.

    A parameter whose type is not known is a field for JSON. All arguments can be given as one JSON object instead.
    """

    def __init__(self, task: Task[..., Any]) -> None:
        self._task = task
        self._codec = codec_of(task)
        self._signature = _signature(task)
        self.fields: tuple[Field, ...] = tuple(self._fields())

    def read(self, texts: Mapping[str, str]) -> Submission:
        """Read the texts of the fields, by name; a text under the name WHOLE has all arguments.

        Nothing is enqueued. The arguments are converted and validated as the task does when it enqueues them.
        """
        known = {name: texts[name] for name in (WHOLE, *(f.name for f in self.fields)) if name in texts}
        if known.get(WHOLE, "").strip():
            values, problems = self._whole(known[WHOLE])
        else:
            values, problems = self._each(known)
        args, kwargs = self._split(values)
        if problems:
            further = {} if WHOLE in problems else self._convert(kwargs)[1]
            return Submission(problems={**further, **problems}, texts=known)
        kwargs, problems = self._convert(kwargs)
        if not problems:
            try:
                encode(self._task.parameters.bind(args, kwargs))
            except InvalidPayload as error:
                problems = self._located(error.problems)
            except (TypeError, ValueError, QworkerError, RecursionError) as error:
                problems = self._explained(error)
        return Submission(args, kwargs, problems, known)

    def texts(self, args: Mapping[str, Any]) -> dict[str, str]:
        """Return the texts that stand for stored arguments: to enqueue a job once more with others."""
        return {WHOLE: json.dumps(args, ensure_ascii=False, indent=2)}

    def _fields(self) -> Iterator[Field]:
        if self._codec is not None and (found := _fields_of_schema(self._codec)) is not None:
            yield from found
            return
        nothing = Schema({})
        hints = _hints(self._task)
        for name, parameter in self._signature.parameters.items():
            if parameter.kind is Parameter.VAR_POSITIONAL:
                yield Field(f"*{name}", Kind.JSON, has_default=True, type="array")
            elif parameter.kind is Parameter.VAR_KEYWORD:
                yield Field(f"**{name}", Kind.JSON, has_default=True, type="object")
            else:
                part = schema_of(parameter, hints.get(name, parameter.annotation))
                yield field_of(name, part, nothing, required=parameter.default is Parameter.empty)

    def _whole(self, text: str) -> tuple[dict[str, Any], dict[str, str]]:
        try:
            values = _json(text)
        except ValueError as error:
            return {}, {WHOLE: str(error)}
        if not isinstance(values, dict):
            return {}, {WHOLE: 'is not an object: write the arguments by name, as in {"user_id": 7}'}
        return values, {}

    def _each(self, texts: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
        values: dict[str, Any] = {}
        problems: dict[str, str] = {}
        for one in self.fields:
            try:
                given = _read(one, texts.get(one.name, one.default))
            except ValueError as error:
                problems[one.name] = str(error)
                continue
            if given is not _OMITTED:
                _put(values, one.name, given)
        return values, problems

    def _convert(self, kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the arguments of a typed task as its annotations say, and what does not fit them.

        What is missing because it could not be read has a problem of the same name.
        """
        if self._codec is None:
            return kwargs, {}
        try:
            return self._codec.load(json.dumps(kwargs)), {}
        except InvalidPayload as error:
            return {}, self._located(error.problems)
        except (TypeError, ValueError, QworkerError, RecursionError) as error:
            return {}, self._explained(error)

    def _split(self, values: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the values that are passed by position, and those that are passed by name."""
        args: list[Any] = []
        rest = dict(values)
        parameters = self._signature.parameters.values()
        variadic = next((p.name for p in parameters if p.kind is Parameter.VAR_POSITIONAL), None)
        more = rest.pop(f"*{variadic}", []) if variadic else []
        for parameter in parameters:
            if parameter.kind is Parameter.VAR_KEYWORD:
                rest |= rest.pop(f"**{parameter.name}", {})
            leads = parameter.kind is Parameter.POSITIONAL_ONLY or (
                bool(more) and parameter.kind is Parameter.POSITIONAL_OR_KEYWORD
            )
            if leads and parameter.name in rest:
                args.append(rest.pop(parameter.name))
        return (*args, *more), rest

    def _located(self, problems: tuple[tuple[str, str], ...]) -> dict[str, str]:
        """Return problems by the names of the fields."""
        found: dict[str, list[str]] = {}
        for path, problem in problems:
            inner = path.removeprefix("args").removeprefix(".")
            name = self._name_of(inner)
            where = inner.removeprefix(name).strip(".") if name else inner
            found.setdefault(name, []).append(f"{where}: {problem}" if where else problem)
        return {name: "; ".join(messages) for name, messages in found.items()}

    def _name_of(self, path: str) -> str:
        """Return the field that a path belongs to: the one that contains it, or the first one within it."""
        names = [one.name for one in self.fields]
        around = [name for name in names if path == name or path.startswith((f"{name}.", f"{name}[", f"{name} "))]
        return max(around, key=len, default=None) or next((n for n in names if n.startswith(f"{path}.")), "")

    def _explained(self, error: Exception) -> dict[str, str]:
        found = _ERROR.fullmatch(str(error))
        if found is None or not (found["path"] or found["at"]):
            return {"": str(error)}
        path = found["path"] or list(self._signature.parameters)[min(int(found["at"]), len(self.fields) - 1)]
        return self._located(((path, found["problem"]),))


def codec_of(task: Task[..., Any]) -> Codec | None:
    """Return the codec of a typed task; None if it is not typed."""
    return None if task.conversion is None else task.conversion.codec


_OMITTED: Any = object()


def _read(one: Field, text: str) -> Any:
    """Return the JSON value of a text, or _OMITTED; raises ValueError with the problem."""
    if len(text) > MAX_TEXT:
        raise ValueError(f"has {len(text):,} characters, more than {MAX_TEXT:,}: pass a reference to the data")
    # A browser sends line breaks as two characters.
    text = text.replace("\r\n", "\n")
    if one.kind is not Kind.TEXT:
        text = text.strip()
    if text == one.default and one.has_default:
        return _OMITTED
    if not text:
        return _empty(one)
    return _value(one, text)


def _empty(one: Field) -> Any:
    if one.required:
        how = ", or an empty string in the JSON of all arguments" if one.kind is Kind.TEXT else ""
        raise ValueError(f"is required: enter a value{how}")
    if one.kind is Kind.TEXT and one.default:  # the default was deleted
        return None if one.nullable else ""
    return None if one.nullable else _OMITTED


def _value(one: Field, text: str) -> Any:
    if one.kind is Kind.INTEGER:
        if not _INTEGER.fullmatch(text):
            raise ValueError(f"is not an integer: {_shown(text)}")
        return int(text)
    if one.kind is Kind.NUMBER:
        if not _NUMBER.fullmatch(text):
            raise ValueError(f"is not a number: {_shown(text)}")
        return int(text) if _INTEGER.fullmatch(text) else float(text)
    if one.kind is Kind.CHOICE:
        if text not in (value for value, _ in one.choices):
            raise ValueError(f"is not one of {', '.join(shown for _, shown in one.choices)}: {_shown(text)}")
        return json.loads(text)
    if reader := _READERS.get(one.kind):
        try:
            reader(text)
        except ValueError:
            raise ValueError(f"is not a {one.kind} as in {_EXAMPLES[one.kind]}: {_shown(text)}") from None
        return text
    return _typed_json(one, text) if one.kind is Kind.JSON else text


_EXAMPLES = {Kind.DATE: "2026-01-31", Kind.TIME: "09:00:00", Kind.DATETIME: "2026-01-31T09:00:00+01:00"}


def _typed_json(one: Field, text: str) -> Any:
    value = _json(text)
    if one.name.startswith("**") and not isinstance(value, dict):
        raise ValueError('is not an object: write arguments by name, as in {"user_id": 7}')
    if one.name.startswith("*") and not one.name.startswith("**") and not isinstance(value, list):
        raise ValueError("is not an array: write values as in [1, 2]")
    return value


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f'is not JSON ({error.msg}, {where}); a string needs quotes: "text"') from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"contains {name}, which is not JSON")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")  # noqa: PLR2004


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    *outer, last = [path] if path.startswith("*") else path.split(".")
    for name in outer:
        values = values.setdefault(name, {})
    values[last] = value


def _fields_of_schema(codec: Codec) -> list[Field] | None:
    """Return the fields of a codec; None if it has no usable schema, as one of the application may."""
    try:
        schema = codec.schema()
        return list(Schema(schema).fields()) if isinstance(schema.get("properties"), dict) else None
    except Exception:  # noqa: BLE001 - code of the application
        return None


def _signature(task: Task[..., Any]) -> Signature:
    return signature(task)


def _hints(task: Task[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(unwrap(task), include_extras=True)
    except Exception:  # noqa: BLE001 - annotations may be anything, and names in them may be missing
        return {}
