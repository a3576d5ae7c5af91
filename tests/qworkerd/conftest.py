"""The command, run in this process, with a small shop as its application."""

import signal
import sys
from collections.abc import Callable, Iterator
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from qworkerd.cli.main import main
from tests.database import Database

SHOP = """
from qworker import App

app = App()

@app.task(queue="emails", timeout=30)
def send(user_id: int, text: str = "hi") -> None: ...

@app.task()
def fail() -> None:
    raise RuntimeError("no luck")

@app.task(name="report")
def report() -> None: ...
"""

Command = Callable[..., Result]


class Shown(Result):
    """A result that tells what was printed, when an assertion on its exit code fails."""

    def __repr__(self) -> str:
        return f"<status {self.exit_code}: {self.output[-200:]!r}>"


#: Before click 8.2 the two outputs were one unless asked for.
APART: dict[str, Any] = {"mix_stderr": False} if "mix_stderr" in signature(CliRunner).parameters else {}


@pytest.fixture(autouse=True)
def no_worker_left() -> Iterator[None]:
    """Keep later tests from what a worker sets for the life of its process: hooks around forks, a wakeup descriptor."""
    # Not the test's own monkeypatch, which would then be undone after its other fixtures.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qworkerd.worker.forks.os", SimpleNamespace(register_at_fork=lambda **_: None))
        yield
    signal.set_wakeup_fd(-1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current directory of the test's own; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.fixture
def shop(folder: Path) -> Path:
    path = folder / "shop.py"
    path.write_text(SHOP)
    return path


@pytest.fixture
def command(folder: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `qworker ...` on the test's database; `env` adds variables."""
    monkeypatch.setenv("QWORKER_DSN", database.dsn)

    def run(*words: object, env: dict[str, str] | None = None, stdin: str | None = None) -> Result:
        arguments = [str(word) for word in words]
        result = CliRunner(**APART).invoke(main, arguments, env=env, input=stdin, prog_name="qworker")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        result.__class__ = Shown
        return result

    return run
