"""A name is taken by one callable; the same one may be declared again."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from qworker import App, ConfigurationError

HEAD = "from tests.qworker.test_identity import app\n"
#: A decorator without functools.wraps, a factory, and what one of these encloses.
TIMED = "def timed(call):\n    def wrapper(*args):\n        return call(*args)\n    return wrapper\n"
FACTORY = "def importer(source):\n    @app.task(name='run')\n    def run(n): return source, n\n    return run\n"

app = App("")


@pytest.fixture(autouse=True)
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of a module that can be imported."""
    app.tasks.clear()
    app.schedules.clear()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path / "shop_of_test.py"
    sys.modules.pop("shop_of_test", None)


def write(path: Path, text: str) -> None:
    path.write_text(HEAD + text)
    importlib.invalidate_caches()


def load(path: Path, text: str) -> ModuleType:
    write(path, text)
    return importlib.import_module(path.stem)


@pytest.mark.parametrize(
    "text",
    [
        TIMED + "@app.task()\n@timed\ndef send(n): ...\n",
        FACTORY.replace("name='run'", "") + "importer('shop')\n",
        "app.task(lambda: None)\n",
    ],
)
def test_a_default_name_that_others_share_is_refused(shop: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match="name the task with name="):
        load(shop, text)


@pytest.mark.parametrize(
    "text",
    [
        TIMED + "@app.task(name='n')\n@timed\ndef send(n): ...\n@app.task(name='n')\n@timed\ndef delete(n): ...\n",
        FACTORY + "importer('shop')\nimporter('bank')\n",
        FACTORY + "importer(object())\nimporter(object())\n",
        "@app.task\ndef send(n): ...\n@app.task\ndef send(n): return n\n",
        "class A:\n    def call(self): ...\napp.task(name='a')(A().call)\napp.task(name='a')(A().call)\n",
    ],
)
def test_another_callable_under_a_taken_name_is_refused_with_both_places(shop: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match="two tasks are named") as caught:
        load(shop, text)
    assert str(caught.value).count(f"({shop}:") >= 2


@pytest.mark.parametrize(
    "text",
    [
        "@app.cron('@hourly')\n@app.task\ndef send(): return 1\n",
        TIMED + "@app.task(name='n')\n@timed\ndef send(): return 1\n",
        FACTORY + "class Source: ...\nrun = importer(Source())\n# return 1\n",
        "from dataclasses import dataclass\n@app.task\n@dataclass\nclass Send:\n    def handle(self): return 1\n",
    ],
)
def test_an_edited_module_may_be_reloaded(shop: Path, text: str) -> None:
    module = load(shop, text)
    (before,) = app.tasks.values()
    write(shop, "\n\n" + text.replace("return 1", "return 2"))
    importlib.reload(module)
    (after,) = app.tasks.values()
    assert after is not before


@pytest.mark.parametrize("name", ["<module>", "<cell line: 1>"])
def test_a_cell_of_a_notebook_may_run_twice_and_be_edited(name: str) -> None:
    names: dict[str, Any] = {"app": app, "__name__": "__main__"}
    for number, result in enumerate((1, 1, 2)):
        text = "\n" * number + f"@app.task(name='send')\ndef send(): return {result}\n"
        code = compile(text, f"<cell {number}>", "exec").replace(co_name=name)
        exec(code, names)  # noqa: S102 - as a notebook does
    assert app.tasks["send"]() == 2


def test_one_file_under_two_names_is_one_task(shop: Path) -> None:
    write(shop, "@app.task(name='send')\ndef send(): ...\n")
    for name in ("__main__", "shop_of_test"):
        exec(compile(shop.read_text(), str(shop), "exec"), {"__name__": name})  # noqa: S102
    assert list(app.tasks) == ["send"]


def test_the_same_callable_may_be_registered_twice() -> None:
    def send() -> None: ...

    register: Callable[..., Any] = app.task(name="send")
    assert register(send) is not register(send)


CLASSES = (
    "from dataclasses import dataclass\n"
    "class Mail:\n    def send(self): return 1\n"
    "class Letter:\n    def send(self): return 2\n"
    "def make(value, base):\n"
    "    @app.task(name='send')\n"
    "    @dataclass(repr=False, eq=False)\n"
    "    class Send(base):\n"
    "        address = value\n"
    "        def handle(self): return self.address, self.send()\n"
    "    return Send\n"
)


@pytest.mark.parametrize("second", ["'b', Mail", "'a', Letter", "('a',), Mail"])
def test_classes_of_a_factory_that_differ_in_their_attributes_or_bases_are_two_tasks(shop: Path, second: str) -> None:
    with pytest.raises(ConfigurationError, match="two tasks are named 'send'"):
        load(shop, CLASSES + f"make('a', Mail)\nmake({second})\n")


def test_a_class_of_a_factory_may_be_reloaded_with_another_value(shop: Path) -> None:
    module = load(shop, CLASSES + "make('a', Mail)\n")
    write(shop, CLASSES + "make('edited', Mail)\n")
    importlib.reload(module)
    assert app.tasks["send"].handler()[0] == "edited"
