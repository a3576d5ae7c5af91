"""The operator's manual says what the code does."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from qworkerd.config.settings import Settings, field_specs
from qworkerd.process import exits

ROOT = Path(__file__).parents[2]
MANUAL = (ROOT / "docs" / "operations.md").read_text()
#: The methods of a logger.
LEVELS = {"debug", "info", "warning", "error", "critical", "log", "msg"}
_EVENT = re.compile(r"[a-z]+\.[a-z_]+")


def part(name: str) -> str:
    return MANUAL.split(f"<!-- {name}:")[1].split(f"<!-- end of {name} -->")[0]


def setting_row(name: str) -> str:
    value = getattr(Settings(), name)
    if name == "processes":
        default = "cores"
    elif value is None:
        default = "" if name in ("app", "dsn") else "none"
    elif isinstance(value, float):
        default = f"{value:g}"
    else:
        default = ",".join(value) if isinstance(value, tuple) else str(value).lower()
    return f"| `{name}` | {default} | {field_specs()[name].help} |"


def test_the_table_of_settings_is_that_of_the_code() -> None:
    rows = [line for line in part("settings").splitlines() if line.startswith("| `")]
    assert "\n".join(rows) == "\n".join(setting_row(name) for name in field_specs())


def constants(node: ast.expr) -> Iterator[str]:
    """The texts an expression may be: `"a.x" if fine else "a.y"` is two; of an f-string, each value that it lists."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from constants(node.body)
        yield from constants(node.orelse)


def logged(source: str) -> Iterator[str]:
    """The events of a module: the first argument of whatever is called like a logger's method, and `"event": ...`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            choice = isinstance(node.args[0], ast.IfExp) and name != "url_for"
            if name in LEVELS or choice or name == "report":
                yield from filter(_EVENT.fullmatch, constants(node.args[0]))
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "event":
                    yield from filter(_EVENT.fullmatch, constants(value))


def test_every_event_is_explained() -> None:
    found = {name for file in (ROOT / "workers" / "qworkerd").rglob("*.py") for name in logged(file.read_text())}
    explained = re.findall(r"^\| `([a-z]+\.[a-z_]+)` \|", part("events"), re.MULTILINE)
    assert sorted(found) == explained


def test_events_are_found_by_their_calls() -> None:
    source = """
log.warning("a.b", x=1)
self._log.critical("acknowledge.died", exc_info=error)
report("c.d" if fine else "c.e", **facts)
print({"event": "f.g"})
path.open("h.i")
"""
    assert set(logged(source)) == {"a.b", "acknowledge.died", "c.d", "c.e", "f.g"}


def test_every_exit_code_is_explained() -> None:
    codes = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", MANUAL, re.MULTILINE)} == codes


def test_the_stop_timeout_is_that_of_the_default_settings() -> None:
    assert f"{Settings().stop_timeout} s with default settings" in MANUAL
