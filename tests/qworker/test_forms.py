"""A form for a task: the fields of its signature, and what becomes of the texts that are written into them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, Field

from qworker import App
from qworker.form_fields import Kind
from qworker.forms import MAX_TEXT, WHOLE, TaskForm
from qworker.payload import MAX_ARGS
from tests.qworker.conftest import Query

HUGE = 9_007_199_254_740_993


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


class Address(BaseModel):
    street: str
    zip: str = "12345"


@dataclass
class Parcel:
    order_id: int
    to: Address
    note: str = ""

    def handle(self) -> None: ...


class Node(BaseModel):
    name: str
    below: "list[Node]" = []


@pytest.fixture
def plain() -> App:
    return App("")


def form(app: App, call: Any, **options: Any) -> TaskForm:
    app.task(name="work", **options)(call)
    return TaskForm(app.get_task("work"))


def problems(found: TaskForm, **texts: str) -> Mapping[str, str]:
    return found.read(texts).problems


def test_a_signature_becomes_fields_with_defaults_and_choices(plain: App) -> None:
    def work(
        user_id: int, ratio: float = 0.5, name: str = "x", kind: Literal["a", 1] = "a", force: bool = False,
        limit: int | None = None, rest: Any = None,
    ) -> None: ...  # fmt: skip

    found = {one.name: one for one in form(plain, work).fields}
    assert [(one.kind, one.required, one.default) for one in found.values()] == [
        (Kind.INTEGER, True, ""), (Kind.NUMBER, False, "0.5"), (Kind.TEXT, False, "x"), (Kind.CHOICE, False, '"a"'),
        (Kind.CHOICE, False, "false"), (Kind.INTEGER, False, ""), (Kind.JSON, False, ""),
    ]  # fmt: skip
    assert found["kind"].choices == (('"a"', "a"), ("1", "1"))
    assert found["limit"].nullable
    assert (found["user_id"].type, found["limit"].type) == ("int", "int or null")


def test_defaults_are_left_out_and_texts_become_values(plain: App) -> None:
    def work(
        user_id: int, ratio: float = 0.5, name: str = "x", kind: Literal["a", 1] = "a", data: Any = None
    ) -> None: ...

    found = form(plain, work)
    prefilled = {one.name: one.default for one in found.fields} | {"user_id": "7"}
    assert found.read(prefilled).kwargs == {"user_id": 7}
    assert found.read({"user_id": "7"}).kwargs == {"user_id": 7}
    all_of_them = {"user_id": f" {HUGE} ", "ratio": "1e3", "name": "", "kind": "1", "data": '[{"a": null}]'}
    assert found.read(all_of_them).kwargs == {
        "user_id": HUGE, "ratio": 1000.0, "name": "", "kind": 1, "data": [{"a": None}]
    }  # fmt: skip
    assert found.read({"user_id": "1", "name": "two\r\nlines"}).kwargs["name"] == "two\nlines"


@pytest.mark.parametrize(
    ("texts", "field", "part"),
    [
        ({}, "user_id", "is required"),
        ({"user_id": "7.5"}, "user_id", "is not an integer: '7.5'"),
        ({"user_id": "\u0667"}, "user_id", "is not an integer"),
        ({"user_id": "9" * 5_000}, "user_id", "is not an integer"),
        ({"user_id": "1", "ratio": "nan"}, "ratio", "is not a number: 'nan'"),
        ({"user_id": "1", "ratio": "1e999"}, "ratio", "not JSON serializable"),
        ({"user_id": "1", "kind": "a"}, "kind", "is not one of a, 1: 'a'"),
        ({"user_id": "1", "data": "{"}, "data", "is not JSON"),
        ({"user_id": "1", "data": "hello"}, "data", 'a string needs quotes: "text"'),
        ({"user_id": "1", "data": "NaN"}, "data", "contains NaN"),
        ({"user_id": "1", "data": "[" * 100_000}, "data", "nested too deeply"),
        ({"user_id": "1", "data": "[" * 201 + "]" * 201}, "data", "nested more than 200 levels"),
        ({"user_id": "1", "name": "a\0b"}, "name", "contains a NUL character at 1"),
        ({"user_id": "1", "name": "\ud800"}, "name", "lone surrogate"),
        ({"user_id": "1", "name": "x" * (MAX_TEXT + 1)}, "name", "has 1,000,001 characters"),
        ({"user_id": "1", "name": "x" * (MAX_ARGS + 1)}, "", "more than 262,144"),
    ],
)
def test_a_problem_is_told_at_its_field(plain: App, texts: dict[str, str], field: str, part: str) -> None:
    def work(
        user_id: int, ratio: float = 0.5, name: str = "x", kind: Literal["a", 1] = "a", data: Any = None
    ) -> None: ...

    submission = form(plain, work).read(texts)
    assert not submission.valid
    assert list(submission.problems) == [field]
    assert part in submission.problems[field]
    assert submission.texts == texts


def test_all_problems_are_told_at_once(plain: App) -> None:
    def work(one: int, two: int, three: float) -> None: ...

    assert sorted(problems(form(plain, work), one="x", three="y")) == ["one", "three", "two"]


def test_positional_and_variadic_parameters_are_bound_as_a_call_binds_them(app: App, query: Query) -> None:
    def work(first: int, /, second: int = 2, *rest: Any, **named: Any) -> None: ...

    found = form(app, work)
    assert [one.name for one in found.fields] == ["first", "second", "*rest", "**named"]
    submission = found.read({"first": "1", "second": "5", "*rest": "[3, 4]", "**named": '{"key": "v"}'})
    assert (submission.args, submission.kwargs) == ((1, 5, 3, 4), {"key": "v"})
    app.get_task("work").enqueue(*submission.args, **submission.kwargs)
    assert query("SELECT args FROM qworker.job") == [({"*": [1, 5, 3, 4], "key": "v"},)]
    assert found.read({"first": "1"}).args == (1,)
    assert "is not an array" in problems(found, **{"first": "1", "*rest": "{}"})["*rest"]
    assert "is not an object" in problems(found, **{"first": "1", "**named": "[]"})["**named"]


def test_all_arguments_can_be_given_as_json(plain: App) -> None:
    def work(user_id: int, name: str) -> None: ...

    found = form(plain, work)
    assert found.read({WHOLE: '{"user_id": 7, "name": ""}', "user_id": "8"}).kwargs == {"user_id": 7, "name": ""}
    assert "is not an object" in problems(found, **{WHOLE: "[]"})[WHOLE]
    assert "is not JSON" in problems(found, **{WHOLE: "{"})[WHOLE]
    assert "missing a required argument: 'name'" in problems(found, **{WHOLE: '{"user_id": 7}'})[""]
    assert json.loads(found.texts({"user_id": HUGE})[WHOLE]) == {"user_id": HUGE}


def test_a_typed_task_has_the_fields_of_its_schema(plain: App) -> None:
    def work(
        when: datetime, day: date, to: Address, size: Size = Size.SMALL, amount: Decimal | None = None,
        copies: Annotated[int, Field(gt=0, le=9, description="How many")] = 1, tags: list[str] = [],  # noqa: B006
    ) -> None: ...  # fmt: skip

    found = {one.name: one for one in form(plain, work, typed=True).fields}
    assert {name: one.kind for name, one in found.items()} == {
        "when": Kind.DATETIME, "day": Kind.DATE, "to.street": Kind.TEXT, "to.zip": Kind.TEXT, "size": Kind.CHOICE,
        "amount": Kind.TEXT, "copies": Kind.INTEGER, "tags": Kind.JSON,
    }  # fmt: skip
    assert (found["copies"].description, found["copies"].maximum) == ("How many", 9)
    assert found["size"].choices == (('"s"', "s"), ('"l"', "l"))
    assert found["tags"].type == "array of string"


def test_the_arguments_of_a_typed_task_are_what_its_annotations_say(app: App, query: Query) -> None:
    def work(
        when: datetime,
        to: Address,
        number: UUID,
        size: Size = Size.SMALL,
        amount: Decimal | None = None,
    ) -> None: ...

    found = form(app, work, typed=True)
    texts = {
        "when": "2026-03-01T12:00:00Z", "to.street": "Main", "number": "8e2b7f8c-5f0a-4c53-9e57-26b3d3b0c3a1",
        "size": '"l"', "amount": "1.10",
    }  # fmt: skip
    submission = found.read(texts)
    assert submission.problems == {}
    assert submission.kwargs["when"] == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert submission.kwargs["to"] == Address(street="Main")
    assert submission.kwargs["amount"] == Decimal("1.10")
    app.get_task("work").enqueue(*submission.args, **submission.kwargs)
    ((args,),) = query("SELECT args FROM qworker.job")
    assert (args["to"]["street"], args["size"], args["amount"]) == ("Main", "l", "1.10")


def test_what_can_be_read_is_validated_even_if_other_fields_cannot(plain: App) -> None:
    def work(copies: Annotated[int, Field(gt=0)], to: Address, day: date) -> None: ...

    said = problems(form(plain, work, typed=True), copies="0", day="soon")
    assert sorted(said) == ["copies", "day", "to.street"]
    assert "greater than 0" in said["copies"]
    assert said["day"].startswith("is not a date")
    assert said["to.street"].startswith("is required")


def test_problems_of_a_typed_task_are_told_at_the_field_of_their_path(plain: App) -> None:
    def work(copies: Annotated[int, Field(gt=0)], to: Address, tags: list[str], day: date) -> None: ...

    found = form(plain, work, typed=True)
    texts = {"copies": "0", "to.street": "x", "tags": '["a", 1]', "day": "2026-02-28"}
    said = problems(found, **texts)
    assert sorted(said) == ["copies", "tags"]
    assert "greater than 0" in said["copies"]
    assert said["tags"].startswith("[1]: ")
    assert "is not a date as in 2026-01-31: '30.2.2026'" in problems(found, **texts | {"day": "30.2.2026"})["day"]
    whole = problems(found, **{WHOLE: '{"copies": 1, "to": {}, "tags": [], "day": "2026-01-01", "more": 1}'})
    assert sorted(whole) == ["", "to.street"]


def test_a_class_task_has_the_fields_of_its_class(app: App, query: Query) -> None:
    app.task(name="parcel", typed=True)(Parcel)
    found = TaskForm(app.get_task("parcel"))
    assert [one.name for one in found.fields] == ["order_id", "to.street", "to.zip", "note"]
    submission = found.read({"order_id": "7", "to.street": "Main", "note": ""})
    app.get_task("parcel").enqueue(*submission.args, **submission.kwargs)
    assert query("SELECT args FROM qworker.job") == [({"order_id": 7, "to": {"street": "Main", "zip": "12345"}},)]


def test_a_schema_that_refers_to_itself_ends(plain: App) -> None:
    def work(tree: Node) -> None: ...

    found = form(plain, work, typed=True)
    assert [(one.name, one.kind) for one in found.fields] == [("tree.name", Kind.TEXT), ("tree.below", Kind.JSON)]
    submission = found.read({"tree.name": "a", "tree.below": '[{"name": "b", "below": []}]'})
    assert submission.kwargs["tree"].below == [Node(name="b")]


class Broken:
    """A codec of the application whose schema cannot be had."""

    def __init__(self, *_: Any) -> None: ...

    def dump(self, args: Mapping[str, Any]) -> dict[str, Any]:
        return dict(args)

    def load(self, text: str) -> dict[str, Any]:
        return dict(json.loads(text))

    def schema(self) -> dict[str, Any]:
        raise RuntimeError

    dump_result = load_result = None


def test_without_a_usable_schema_or_annotation_there_are_fields_for_json(plain: App) -> None:
    def work(user_id: int) -> None: ...
    def unknown(user_id: "Missing", other) -> None: ...  # type: ignore[name-defined,no-untyped-def] # noqa: ANN001, F821

    found = form(plain, work, typed=Broken)
    assert [(one.name, one.kind) for one in found.fields] == [("user_id", Kind.INTEGER)]
    assert found.read({"user_id": "7"}).kwargs == {"user_id": 7}
    plain.task(name="unknown")(unknown)
    fields = TaskForm(plain.get_task("unknown")).fields
    assert [(one.kind, one.required) for one in fields] == [(Kind.JSON, True)] * 2


def test_what_no_field_has_asked_for_is_ignored(plain: App) -> None:
    def work(user_id: int) -> None: ...

    submission = form(plain, work).read({"user_id": "7", "admin": "1"})
    assert (submission.kwargs, submission.texts) == ({"user_id": 7}, {"user_id": "7"})
