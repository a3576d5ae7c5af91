"""Typed tasks: what the annotations allow comes back as it was; all else is refused, with every problem at once."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from qworker import App, ConfigurationError, InvalidPayload, PermanentError, Task
from qworker.errors import StoredPayloadInvalid
from tests.qworker.conftest import FakeWorker, Query


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Address:
    street: str
    lines: list[str]


class Item(BaseModel, extra="forbid"):
    sku: str
    count: Annotated[int, Field(gt=0)] = 1
    seal: bytes = b""


class Size(TypedDict):
    width: int
    height: int


class Card(BaseModel):
    kind: Literal["card"] = "card"
    number: str


class Cash(BaseModel):
    kind: Literal["cash"] = "cash"
    amount: Decimal


@pytest.fixture
def plain() -> App:
    return App("")


VALUES: list[tuple[Any, Any]] = [
    (int, 7),
    (float, 3),
    (bool, True),
    (str, "Köln"),
    (UUID, UUID("8e2b7f8c-5f0a-4c53-9e57-26b3d3b0c3a1")),
    (datetime, datetime(2026, 3, 1, 12, tzinfo=UTC)),
    (datetime, datetime(2026, 3, 1, 12, 0, 0, 123456)),  # noqa: DTZ001 - naive ones are values too
    (date, date(2026, 3, 1)),
    (timedelta, timedelta(days=1, seconds=3)),
    (Decimal, Decimal("1.10")),
    (Colour, Colour.BLUE),
    (bytes, b"\xff\x00"),
    (Address, Address("Main", ["a", "b"])),
    (Item, Item(sku="x", count=2)),
    (Size, {"width": 1, "height": 2}),
    (Card | Cash, Cash(amount=Decimal("9.90"))),
    (int | str, "7"),
    (int | str, 7),
    (int | None, None),
    (list[datetime], [datetime(2026, 3, 1, tzinfo=UTC)]),
    (tuple[int, Decimal], (1, Decimal(2))),
    (set[int], {1, 2}),
    (dict[int, Decimal], {1: Decimal("0.5")}),
    (Mapping[str, Item], {"a": Item(sku="x")}),
    (Literal["a", "b"], "b"),
    (Any, {"x": [1, "a", None]}),
]


@pytest.mark.parametrize(("kind", "value"), VALUES, ids=lambda value: str(value)[:40])
def test_a_value_comes_back_as_it_was(app: App, query: Query, kind: Any, value: Any) -> None:
    def keep(it: Any) -> Any:
        return it

    keep.__annotations__ = {"it": kind, "return": kind}
    task = app.task(name="keep", typed=True)(keep)
    job = task.enqueue(value)
    ((stored,),) = query("SELECT args::text FROM qworker.job")
    assert json.loads(stored) == job.args
    loaded = task.load(stored)["it"]
    assert (loaded, type(loaded)) == (value, type(value) if kind is not float else float)
    assert task.run(stored) == value


def ship(to: Address, items: list[Item], colour: Colour, when: datetime, note: str | None = None) -> None: ...


@pytest.fixture
def shipping(plain: App) -> Task[..., None]:
    return plain.task(name="ship", typed=True)(ship)


def problems(task: Task[..., Any], *args: Any, **kwargs: Any) -> dict[str, str]:
    with pytest.raises(InvalidPayload) as caught:
        task.enqueue(*args, **kwargs)
    assert not isinstance(caught.value, PermanentError)
    for path, said in caught.value.problems:
        assert f"{path}: {said}" in str(caught.value)
    return dict(caught.value.problems)


def test_all_problems_are_reported_at_once_with_their_paths(shipping: Task[..., None]) -> None:
    address = Address("Main", ["a", 5, "c", None])  # type: ignore[list-item]
    found = problems(shipping, address, [Item(sku="x"), {"sku": 7}, "y"], "red", colours=5)
    kinds = found.pop("args.items[2]"), found.pop("args.colour")
    assert all(kind in said for kind, said in zip(("Item", "Colour"), kinds, strict=True))
    assert found == {
        "args.to.lines[1]": "Input should be a valid string",
        "args.to.lines[3]": "Input should be a valid string",
        "args.items[1].sku": "Input should be a valid string",
        "args.when": "Field required",
        "args.colours": "Extra inputs are not permitted",
    }


def test_a_value_that_is_almost_right_is_refused(plain: App) -> None:
    @plain.task(name="t", typed=True)
    def task(number: int, text: str, either: int | Decimal | None, moment: datetime) -> None: ...

    found = problems(task, "7", 7, "x", "2026-01-01T00:00:00Z")
    assert set(found) == {"args.number", "args.text", "args.either", "args.moment"}
    assert found["args.either"] == "Input should be a valid integer, or: Input should be an instance of Decimal"


def test_a_model_that_was_changed_after_its_validation_is_refused(shipping: Task[..., None]) -> None:
    item = Item(sku="x")
    item.count = 0
    wrong = Item(sku="x")
    wrong.sku = 5  # type: ignore[assignment]
    to, now = Address("Main", []), datetime.now(UTC)
    assert problems(shipping, to, [item], Colour.RED, now) == {"args.items[0].count": "Input should be greater than 0"}
    (path,) = found = problems(shipping, to, [wrong], Colour.RED, now)
    assert path == "args.items"
    assert "cannot be converted to JSON" in found[path]


def test_a_type_that_would_come_back_as_another_is_refused(plain: App) -> None:
    @plain.task(name="t", typed=True)
    def task(either: str | datetime, anything: Any, many: list[str | date]) -> None: ...

    found = problems(task, datetime.now(UTC), {"a": Decimal(1)}, ["a", date(2026, 1, 1)])
    assert set(found) == {"args.either", "args.anything.a", "args.many[1]"}
    assert found["args.either"].startswith("a datetime would be read as a str: annotate one type")


def test_what_json_does_not_hold_is_refused_as_elsewhere(plain: App) -> None:
    @plain.task(name="t", typed=True)
    def task(number: float = 0, text: str = "", blob: bytes = b"") -> None: ...

    with pytest.raises(ValueError, match=r"args\.number: nan is not JSON"):
        task.enqueue(float("nan"))
    with pytest.raises(ValueError, match=r"args\.text: contains a NUL"):
        task.enqueue(text="\0")
    with pytest.raises(ValueError, match="args takes"):
        task.enqueue(blob=bytes(1_000_000))


def test_arguments_given_twice_or_too_many_are_a_type_error(shipping: Task[..., None]) -> None:
    with pytest.raises(TypeError, match="multiple values for argument 'to'"):
        shipping.enqueue(1, to=2)
    with pytest.raises(TypeError, match="too many positional arguments"):
        shipping.enqueue(1, 2, 3, 4, 5, 6)


def test_many_problems_are_all_named_in_a_message_of_limited_size(plain: App) -> None:
    @plain.task(name="t", typed=True)
    def task(numbers: list[int]) -> None: ...

    with pytest.raises(InvalidPayload) as caught:
        task.enqueue(["x"] * 60)  # type: ignore[list-item]
    assert len(caught.value.problems) == 60
    assert str(caught.value).startswith("t: 60 problems: args.numbers[0]: ")
    assert all(f"args.numbers[{n}]" in str(caught.value) for n in range(60))
    assert len(str(caught.value)) < 3_000


def test_a_row_of_many_that_does_not_fit_is_named(app: App, query: Query) -> None:
    @app.task(name="t", typed=True)
    def task(number: int, when: datetime | None = None) -> None: ...

    assert task.enqueue_many([(1,), {"number": 2, "when": datetime(2026, 1, 1, tzinfo=UTC)}]) == 2
    with pytest.raises(InvalidPayload, match=r"row 1: t: args\.number: Input should be") as caught:
        task.enqueue_many([(1,), ("x",)])
    assert [path for path, _ in caught.value.problems] == ["args.number"]
    assert query("SELECT count(*) FROM qworker.job") == [(2,)]


def test_the_key_is_that_of_the_stored_values(app: App) -> None:
    @app.task(name="t", typed=True, unique=True)
    def task(when: datetime) -> None: ...

    now = datetime.now(UTC)
    assert not task.enqueue(now).duplicate
    assert task.enqueue(when=now).duplicate
    assert task.enqueue_many([(now,), (now + timedelta(days=1),)]) == 1


def test_dataclass_tasks_are_typed_by_their_fields(app: App) -> None:
    @app.task(name="t", typed=True)
    @dataclass
    class Ship:
        to: Address
        when: datetime

        def handle(self) -> Address:
            return self.to

        def failed(self, _error: Exception) -> None:
            seen.append((self.to, self.when))

    seen: list[Any] = []
    address, now = Address("Main", []), datetime.now(UTC)
    job = app.enqueue(Ship(address, now))
    task = app.get_task("t")
    assert task.run(json.dumps(job.args)) == address
    assert task.hook is not None
    task.hook(job, ValueError())  # type: ignore[arg-type]
    assert seen == [(address, now)]
    with pytest.raises(InvalidPayload, match=r"args\.when: Input should be"):
        app.enqueue(Ship(address, "now"))  # type: ignore[arg-type]


def test_every_task_of_an_app_can_be_typed() -> None:
    app = App("", typed=True)

    @app.task(name="t")
    def task(number: int) -> None: ...

    @app.task(name="untyped", typed=False)
    def untyped(number) -> None: ...  # type: ignore[no-untyped-def] # noqa: ANN001

    assert set(problems(task, "x")) == {"args.number"}
    assert untyped.conversion is None


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda _x: None, r"needs the type of _x: annotate it.*or declare the task with typed=False"),
        (lambda *_x: None, r"takes arguments by name: no \*args"),
        (lambda **_x: None, r"takes arguments by name"),
    ],
)
def test_what_cannot_be_typed_is_refused_at_once(plain: App, call: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        plain.task(name="t", typed=True)(call)


class Strange:
    pass


@pytest.mark.parametrize("kind", [Strange, "NotDefined"])
def test_types_that_cannot_be_used_are_found_before_the_first_job(plain: App, kind: Any) -> None:
    def task(it: Any) -> None: ...

    task.__annotations__["it"] = kind
    plain.task(name="t", typed=True)(task)
    with pytest.raises(ConfigurationError, match="t: its annotations cannot be used"):
        plain.prepare()


def test_forward_references_are_resolved_at_the_first_use(plain: App) -> None:
    @plain.task(name="t", typed=True)
    def task(it: "Later") -> None: ...

    plain.prepare()
    assert task.load('{"it": {"n": 1}}') == {"it": Later(1)}


@dataclass
class Later:
    n: int


# --- what is stored


def test_stored_arguments_that_do_not_fit_are_refused_for_good(shipping: Task[..., None]) -> None:
    with pytest.raises(StoredPayloadInvalid) as caught:
        shipping.run(
            '{"to": {"street": "x", "lines": ["a", 2]}, "items": [{"sku": "x", "count": 0}], "colour": "pink"}'
        )
    assert isinstance(caught.value, PermanentError)
    assert [path for path, _ in caught.value.problems] == [
        "args.to.lines[1]", "args.items[0].count", "args.colour", "args.when"
    ]  # fmt: skip


def test_arguments_by_position_from_sql_are_named(plain: App) -> None:
    @plain.task(name="t", typed=True)
    def task(number: int, when: date, *, extra: str = "") -> tuple[int, date]:
        return number, when

    assert task.run('{"*": [7, "2026-01-01"]}') == (7, date(2026, 1, 1))
    with pytest.raises(StoredPayloadInvalid, match="3 values, more than the 2 parameters"):
        task.run('{"*": [7, "2026-01-01", "x"]}')


def test_what_is_stored_names_no_code(plain: App) -> None:
    @plain.task(name="t", typed=True)
    def task(it: Item) -> None: ...

    for stored in ("os.system", {"sku": "x", "__class__": "os.system"}, {"sku": "x", "py/object": "os.system"}):
        with pytest.raises(StoredPayloadInvalid):
            task.run(json.dumps({"it": stored}))


# --- new code, old jobs


def test_old_jobs_run_with_a_new_parameter_that_has_a_default(plain: App) -> None:
    @plain.task(name="t", typed=True)
    def task(number: int, when: date | None = None) -> Any:
        return number, when

    assert task.run('{"number": 7}') == (7, None)


def test_an_upgrade_adapts_the_jobs_of_older_code(plain: App) -> None:
    @plain.task(name="t", typed=True)
    def task(to: Address, urgent: bool = False) -> Any:
        return to, urgent

    @task.upgrade
    def upgrade(args: dict[str, Any]) -> dict[str, Any]:
        if "street" in args:
            args["to"] = {"street": args.pop("street"), "lines": []}
        return args

    assert task.run('{"street": "Main", "urgent": true}') == (Address("Main", []), True)
    assert task.run('{"*": [{"street": "Main", "lines": []}]}') == (Address("Main", []), False)
    with pytest.raises(ConfigurationError, match=r"has an upgrade already: .*extend it"):
        task.upgrade(upgrade)


def test_a_plain_task_can_have_an_upgrade_too(plain: App) -> None:
    @plain.task(name="t")
    def task(user_id: int) -> int:
        return user_id

    @task.upgrade
    def renamed(args: dict[str, Any]) -> dict[str, Any]:
        return {"user_id": args["user"]} if "user" in args else args

    assert task.run('{"user": 7}') == task.run('{"user_id": 7}') == task.run('{"*": [7]}') == 7


def test_an_upgrade_that_returns_nothing_says_so(plain: App) -> None:
    @plain.task(name="t")
    def task(user_id: int) -> None: ...

    task.upgrade(lambda _args: None)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="the upgrade of t must return the arguments as a dict, not None"):
        task.run('{"user_id": 7}')


# --- results


def test_wait_returns_the_type_of_the_annotation(app: App, fake_worker: FakeWorker) -> None:
    @app.task(name="t", typed=True)
    def task() -> list[Item]:
        return []

    job = task.enqueue()
    assert fake_worker.claim() == job.id
    assert task.conversion
    fake_worker.complete(job.id, task.conversion.dump_result([Item(sku="x")]))
    assert job.wait() == app.job(job.id).wait() == [Item(sku="x")]
    assert app.job(job.id).result == [{"sku": "x", "count": 1, "seal": ""}]


def test_a_stored_result_that_does_not_fit_is_refused(app: App, fake_worker: FakeWorker) -> None:
    @app.task(name="t", typed=True)
    def task() -> date:
        return date.today()  # noqa: DTZ011

    job = task.enqueue()
    assert fake_worker.claim() == job.id
    fake_worker.complete(job.id, "soon")
    with pytest.raises(InvalidPayload, match="t: result: Input should be a valid date"):
        job.wait()


def test_wait_returns_none_for_a_job_without_a_stored_result(app: App, fake_worker: FakeWorker) -> None:
    @app.task(name="t", typed=True)
    def task() -> date:
        return date.today()  # noqa: DTZ011

    job = task.enqueue()
    assert fake_worker.claim() == job.id
    fake_worker.complete(job.id)
    assert job.wait() is None


# --- a codec of one's own


class Names:
    """Stores the name of a colour."""

    def __init__(self, _call: Any, name: str) -> None:
        self.name = name

    def dump(self, args: Mapping[str, Any]) -> dict[str, Any]:
        if wrong := [(f"args.{key}", "no colour") for key, it in args.items() if not isinstance(it, Colour)]:
            raise InvalidPayload(self.name, wrong)
        return {key: it.name for key, it in args.items()}

    def load(self, text: str) -> dict[str, Any]:
        return {key: Colour[it] for key, it in json.loads(text).items()}

    def dump_result(self, result: Any) -> Any:
        return result.name

    def load_result(self, result: Any) -> Any:
        return Colour[result]

    def schema(self) -> dict[str, Any]:
        return {}


def test_a_codec_of_ones_own_takes_the_place_of_pydantics(app: App) -> None:
    @app.task(name="t", typed=Names)
    def task(it: Colour) -> Colour:
        return it

    job = task.enqueue(Colour.RED)
    assert job.args == {"it": "RED"}
    assert task.run(json.dumps(job.args)) is Colour.RED
    with pytest.raises(InvalidPayload, match=r"t: args\.it: no colour"):
        task.enqueue(5)  # type: ignore[arg-type]


# --- pydantic is imported by typed tasks only


def test_pydantic_is_imported_at_the_first_use_of_a_typed_task() -> None:
    program = """
import sys, qworker
app = qworker.App("")
@app.task
def plain(n: int): ...
@app.task(typed=True)
def typed(n: int): ...
assert "pydantic" not in sys.modules
app.prepare()
assert "pydantic" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_pydantic_a_typed_task_names_the_command(plain: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qworker.codec.find_spec", lambda _name: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'pgqworker\[pydantic\]'"):
        plain.task(name="t", typed=True)(ship)
    plain.task(name="own", typed=Names)(ship)
