"""The place of an error is where the application's code raised it, and its group that of its cause."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from qworker.fingerprint import fingerprint, to_hex
from qworkerd.outcomes import origin
from qworkerd.outcomes.decide import decide, describe_failure
from qworkerd.outcomes.origin import frame_of

INSTALLED = "/venv/lib/python3/site-packages"


def caught(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except BaseException as error:  # noqa: BLE001 - any is of interest
        return error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
    raise AssertionError("it raised nothing")


def module(name: str, path: str, source: str, **values: Any) -> ModuleType:
    """Return a module whose code claims to be in a file."""
    made = ModuleType(name)
    vars(made).update(values)
    exec(compile(source, path, "exec"), vars(made))  # noqa: S102
    return made


def test_the_innermost_frame_of_the_application_counts() -> None:
    library = module("json_lib", f"{INSTALLED}/json_lib/core.py", "def load(s):\n    raise ValueError(s)")
    shop = module(
        "shop.tasks",
        "/srv/shop/tasks.py",
        "def parse(s):\n    return load(s)\ndef pay():\n    parse('x')",
        load=library.load,
    )
    assert frame_of(caught(shop.pay)) == "shop.tasks:parse"


def test_the_standard_library_is_not_the_application() -> None:
    shop = module("shop.tasks", "/srv/shop/tasks.py", "import json\ndef pay():\n    json.loads('{')")
    assert frame_of(caught(shop.pay)) == "shop.tasks:pay"


def test_an_application_that_is_installed_as_a_package_is_the_application() -> None:
    library = module("lib", f"{INSTALLED}/lib.py", "def load():\n    raise ValueError")
    models = module("shop.models", f"{INSTALLED}/shop/models.py", "def save():\n    load()", load=library.load)
    shop = module("shop.tasks", f"{INSTALLED}/shop/tasks.py", "def pay():\n    save()", save=models.save)
    assert frame_of(caught(shop.pay)) == "shop.models:save"


def test_without_a_frame_of_the_application_the_innermost_one_counts() -> None:
    assert frame_of(caught(lambda: json.loads("{"))) is not None
    assert frame_of(ValueError()) is None


@pytest.mark.parametrize(
    "body", ["[1 / 0 for _ in 'a']", "{1 / 0 for _ in 'a'}", "{1: 1 / 0 for _ in 'a'}", "list(1 / 0 for _ in 'a')"]
)
def test_a_comprehension_is_part_of_its_function(body: str) -> None:
    shop = module(
        "shop.tasks", "/srv/shop/tasks.py", f"def pay():\n    return {body}\nclass A:\n    def m(self):\n        {body}"
    )
    assert frame_of(caught(shop.pay)) == "shop.tasks:pay"
    assert frame_of(caught(shop.A().m)) == "shop.tasks:A.m"


def test_a_line_more_changes_nothing() -> None:
    before, after = (
        caught(module("m", "/srv/m.py", f"{'#' * number}\n" * number + "def f():\n    raise KeyError(7)").f)
        for number in (1, 5)
    )
    assert describe_failure(before, "t", 1)["fingerprint"] == describe_failure(after, "t", 1)["fingerprint"]


def test_the_record_names_its_group() -> None:
    shop = module("shop.tasks", "/srv/shop/tasks.py", "def pay():\n    raise ValueError('order 17 of \\'ann\\'')")
    record = describe_failure(caught(shop.pay), "shop.pay", 3)
    assert record["group"] == {"type": "ValueError", "message": "order <n> of <s>", "frame": "shop.tasks:pay"}
    assert record["fingerprint"] == to_hex(fingerprint("shop.pay", "ValueError", "order 17 of 'ann'", "shop.tasks:pay"))
    assert record["message"] == "order 17 of 'ann'"


def test_an_exception_group_belongs_to_the_group_of_its_first_exception() -> None:
    def fail() -> None:
        inner: ExceptionGroup[Exception] = ExceptionGroup("inner", [caught(lambda: int("x")), KeyError("k")])  # type: ignore[list-item]
        raise ExceptionGroup("unhandled errors in a TaskGroup", [inner])

    record = describe_failure(caught(fail), "t", 1)
    assert record["type"] == "ExceptionGroup"
    assert record["group"]["type"] == "ExceptionGroup[ValueError]"
    assert record["group"]["message"] == "invalid literal for int() with base <n>: <s>"
    assert "<lambda>" in record["group"]["frame"]


def test_a_password_is_part_of_no_group() -> None:
    record = describe_failure(ExceptionGroup("g", [OSError("postgresql://u:hunter2@h/db refused")]), "t", 1)
    assert "hunter2" not in json.dumps(record["group"])


def test_an_error_whose_traceback_cannot_be_read_has_a_group() -> None:
    class Broken(Exception):
        @property
        def __traceback__(self) -> None:  # type: ignore[override]
            raise RuntimeError

    assert frame_of(Broken()) is None
    assert describe_failure(Broken("7"), "t", 1)["group"]["message"] == "<n>"


def test_a_deep_recursion_is_grouped() -> None:
    def deeper(depth: int) -> int:
        return deeper(depth + 1) + 1

    error = caught(lambda: deeper(0))
    assert isinstance(error, RecursionError)
    assert frame_of(error) is not None


def test_our_own_code_is_found() -> None:
    assert all(Path(folder).is_dir() for folder in (*origin._OURS, *origin._STANDARD_LIBRARY))
    assert sys.modules[decide.__module__].__file__ is not None
    assert str(sys.modules[decide.__module__].__file__).startswith(origin._OURS)
