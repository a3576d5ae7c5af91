"""Arguments and results as JSON."""

import enum
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from qworker import PayloadTooLarge
from qworker.payload import MAX_ARGS, MAX_DEPTH, MAX_RESULT, Parameters, encode, encode_result


class Point(NamedTuple):
    x: int
    y: int


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


def nested(depth: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return {"a": value}


# --- binding


def plain(a: int, b: int = 2) -> None: ...
def keywords(a: int, *, b: int = 2, **others: int) -> None: ...
def leading(a: int, b: int = 2, /, c: int = 3) -> None: ...
def starred(a: int, *rest: int, b: int = 2) -> None: ...


@pytest.mark.parametrize(
    ("call", "args", "kwargs", "stored"),
    [
        (plain, (1,), {}, {"a": 1}),
        (plain, (1, 5), {}, {"a": 1, "b": 5}),
        (plain, (1,), {"b": 5}, {"a": 1, "b": 5}),
        (plain, (), {"b": 5, "a": 1}, {"a": 1, "b": 5}),
        (keywords, (1,), {"b": 5, "z": 9}, {"a": 1, "b": 5, "z": 9}),
        (leading, (1,), {}, {"*": (1,)}),
        (leading, (1, 5, 6), {}, {"*": (1, 5), "c": 6}),
        (leading, (1,), {"c": 6}, {"*": (1,), "c": 6}),
        (starred, (1, 5, 6), {"b": 7}, {"*": (1, 5, 6), "b": 7}),
        (starred, (), {"a": 1}, {"*": (1,)}),
    ],
)
def test_arguments_are_stored_by_name_and_by_position_only_where_they_must(
    call: Any, args: tuple[Any, ...], kwargs: dict[str, Any], stored: dict[str, Any]
) -> None:
    assert Parameters(call, "t").bind(args, kwargs) == stored


@pytest.mark.parametrize("call", [plain, keywords, leading, starred])
def test_what_is_stored_calls_the_handler_with_the_same_arguments(call: Any) -> None:
    stored = json.loads(encode(Parameters(call, "t").bind((1,), {})))
    call(*stored.pop("*", ()), **stored)
    assert "b" not in stored, "a default is the handler's when it runs"


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "t(a: int, b: int = 2) -> None: missing a required argument: 'a'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"a": 2}, "multiple values for argument 'a'"),
        ((1,), {"c": 2}, "unexpected keyword argument 'c'"),
    ],
)
def test_wrong_arguments_are_refused_with_the_signature(
    args: tuple[Any, ...], kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError) as caught:
        Parameters(plain, "t").bind(args, kwargs)
    assert message in str(caught.value)


def test_the_key_of_positional_arguments_is_no_name() -> None:
    with pytest.raises(TypeError, match="is not a valid argument name"):
        Parameters(keywords, "t").bind((1,), {"*": 2})


# --- encoding


def test_json_is_compact_and_keeps_what_people_write() -> None:
    assert encode({"name": "Jürgen 🎉", "n": [1, 2.5, None, True]}) == '{"name":"Jürgen 🎉","n":[1,2.5,null,true]}'


def test_tuples_and_number_enums_are_stored_as_lists_and_numbers() -> None:
    assert encode({"p": Point(1, 2), "level": Level.HIGH}) == '{"p":[1,2],"level":3}'


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"user": {"tags": [1, 2, {3}]}}, "args.user.tags[2]: set is not JSON serializable; pass sorted(value)"),
        ({"*": (1, b"x")}, "args[1]: bytes is not JSON serializable"),
        ({"at": datetime.now(UTC)}, "args.at: datetime is not JSON serializable; pass value.isoformat()"),
        ({"at": date(2026, 1, 1)}, "args.at: date is not JSON serializable; pass value.isoformat()"),
        ({"d": timedelta(1)}, "pass value.total_seconds()"),
        ({"d": Decimal("1.5")}, "args.d: Decimal is not JSON serializable; pass str(value)"),
        ({"u": UUID(int=1)}, "args.u: UUID is not JSON serializable; pass str(value)"),
        ({"p": Path("x")}, "PosixPath is not JSON serializable; pass str(value)"),
        ({"c": Colour.RED}, "args.c: Colour is not JSON serializable; pass value.value"),
        ({"o": object()}, "args.o: object is not JSON serializable; pass numbers"),
        ({"d": {1: 2}}, "args.d: the key 1 is int; keys of a JSON object must be strings"),
        ({"d": [{"x": {None: 2}}]}, "args.d[0].x: the key None is NoneType"),
        ({"d": {(1, 2): 3}}, "args.d: the key (1, 2) is tuple"),
    ],
)
def test_what_is_no_json_is_refused_with_its_path(args: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError) as caught:
        encode(args)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"x": [1.0, float("nan")]}, "args.x[1]: nan is not JSON serializable"),
        ({"x": float("-inf")}, "args.x: -inf is not JSON serializable"),
        ({"x": {"y": "a\0b"}}, "args.x.y: contains a NUL character at 1"),
        ({"x": {"y\0": 1}}, r"args.x: the key 'y\x00': contains a NUL character"),
        ({"x": ["\udc80"]}, "args.x[0]: contains a lone surrogate at 0"),
        ({"x": {"\ud800": 1}}, "contains a lone surrogate at 0"),
        ({"x": 10**5000}, "args.x: the number has too many digits"),
    ],
)
def test_what_postgresql_cannot_store_is_refused_with_its_path(args: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        encode(args)
    assert message in str(caught.value)


def test_a_backslash_before_u0000_is_only_text() -> None:
    assert json.loads(encode({"x": "\\u0000"})) == {"x": "\\u0000"}


def test_paired_surrogates_in_escapes_are_characters() -> None:
    assert encode({"x": "\U0001f389"}) == '{"x":"🎉"}'


def test_nesting_ends_somewhere() -> None:
    encode(nested(MAX_DEPTH))
    with pytest.raises(ValueError, match="levels deep"):
        encode(nested(MAX_DEPTH + 1))
    with pytest.raises(ValueError, match="levels deep"):
        encode(nested(100_000))


def test_a_value_that_contains_itself_is_refused() -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(ValueError, match="containing itself"):
        encode({"a": ring})


def test_the_limit_is_exact_and_counts_bytes() -> None:
    overhead = len('{"a":""}')
    encode({"a": "x" * (MAX_ARGS - overhead)})
    with pytest.raises(PayloadTooLarge, match="args takes 262,145 bytes as JSON, more than 262,144"):
        encode({"a": "x" * (MAX_ARGS - overhead + 1)})
    encode({"a": "é" * ((MAX_ARGS - overhead) // 2)})
    with pytest.raises(PayloadTooLarge):
        encode({"a": "é" * ((MAX_ARGS - overhead) // 2 + 1)})


# --- results


@pytest.mark.parametrize(
    ("value", "text"), [(None, None), (0, "0"), ("", '""'), ("text", '"text"'), ([], "[]"), ({"a": (1,)}, '{"a":[1]}')]
)
def test_results_are_json_and_nothing_for_none(value: Any, text: str | None) -> None:
    assert encode_result(value) == text


def test_results_are_checked_like_arguments() -> None:
    with pytest.raises(TypeError, match="result: set is not JSON serializable"):
        encode_result({1})
    with pytest.raises(ValueError, match=r"result\[0\]: nan"):
        encode_result([float("nan")])
    with pytest.raises(ValueError, match="result: contains a NUL"):
        encode_result("\0")
    encode_result("x" * (MAX_RESULT - 2))
    with pytest.raises(PayloadTooLarge, match="result takes 65,537 bytes"):
        encode_result("x" * (MAX_RESULT - 1))
