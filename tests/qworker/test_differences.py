"""JSON values are compared key by key, and whatever the values are, in bounded time."""

import json
from copy import deepcopy
from time import monotonic
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qworker.differences import MAX_KEPT, MAX_PARTS, Differences, differences

NUMBERS = st.integers(-5, 5) | st.floats(-2, 2).map(lambda number: round(number, 1))
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text("ab.", max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=4),
    max_leaves=20,
)


def shown(found: Differences) -> list[tuple[Any, ...]]:
    return [
        (".".join(one.path), one.a if one.in_a else "missing", one.b if one.in_b else "missing")
        for one in found.different
    ]


def test_values_are_compared_by_name() -> None:
    found = differences(
        {"user": {"id": 1, "name": "ann"}, "items": [1, 2, 3], "same": {"deep": [1]}, "gone": None},
        {"items": [1, 5], "user": {"name": "ann", "id": 2}, "same": {"deep": [1]}, "new": False},
    )

    assert shown(found) == [
        ("user.id", 1, 2), ("items.1", 2, 5), ("items.2", 3, "missing"), ("gone", None, "missing"),
        ("new", "missing", False),
    ]  # fmt: skip
    assert {one.path: one.value for one in found.equal} == {
        ("user", "name"): "ann", ("items", "0"): 1, ("same",): {"deep": [1]}
    }  # fmt: skip
    assert (found.different_count, found.equal_count, found.complete, found.same) == (5, 3, True, False)


@pytest.mark.parametrize(("a", "b"), [(1, 1.0), (1, True), (0, False), ("1", 1), ([], {}), (None, 0), ([1], [True])])
def test_what_json_tells_apart_differs(a: object, b: object) -> None:
    assert not differences({"x": a}, {"x": b}).same
    assert differences({"x": a}, {"x": deepcopy(a)}).same


@given(JSON, JSON)
def test_they_are_the_same_exactly_if_their_json_is(a: Any, b: Any) -> None:
    found = differences(a, b)
    assert found.same == (json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True))
    assert found.complete
    assert differences(a, deepcopy(a)).same


def part(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = value[int(name) if isinstance(value, list) else name]
    return value


@given(JSON, JSON)
def test_each_part_is_that_of_its_value(a: Any, b: Any) -> None:
    found = differences(a, b)
    for one in found.different:
        assert not one.in_a or part(a, one.path) == one.a
        assert not one.in_b or part(b, one.path) == one.b
    for same in found.equal:
        assert part(a, same.path) == part(b, same.path) == same.value
    swapped = differences(b, a)
    assert {one.path for one in swapped.different} == {one.path for one in found.different}


def test_large_values_are_compared_in_bounded_time() -> None:
    large = {"items": [{"n": number, "text": "x" * 10} for number in range(30_000)]}
    changed = deepcopy(large)
    changed["items"][-1]["n"] = 0
    began = monotonic()

    whole, same = differences(large, changed), differences(large, deepcopy(large))

    assert monotonic() - began < 2.0
    assert (whole.complete, whole.same) == (False, False)
    assert same.same
    assert differences({"items": [*range(MAX_PARTS)]}, {}).complete
    many = differences({str(n): n for n in range(5_000)}, {str(n): -n - 1 for n in range(5_000)})
    assert (len(many.different), many.different_count) == (MAX_KEPT, 5_000)


def test_values_of_any_depth_are_compared() -> None:
    deep: Any = 1
    other: Any = 2
    for _ in range(120):
        deep, other = {"a": [deep]}, {"a": [other]}
    found = differences(deep, other)
    assert (found.different_count, len(found.different[0].path)) == (1, 30)
    assert differences(deep, json.loads(json.dumps(deep))).same
