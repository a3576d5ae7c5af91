"""Makes docs/api.md from the docstrings, and the part of docs/doctor.md that `qworker doctor --explain` prints.

`python -m tests.reference` writes the pages.
"""

import ast
import re
import sys
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "api.md"
QUEUE = ROOT / "queue"
DOCTOR, CHECKS = ROOT / "docs" / "doctor.md", ROOT / "workers" / "qworkerd" / "doctor" / "checks.md"

HEAD = """# API reference

This page is made from the docstrings (`python -m tests.reference`). [Tasks and options](tasks-and-options.md) explains
how the parts work together. Durations are seconds or timedeltas, and times are aware datetimes.
"""
#: The sections: a title, and the names in each file; None: all public ones.
SECTIONS: list[tuple[str, list[tuple[str, list[str] | None]]]] = [
    ("Declaring", [("qworker/app.py", ["App"]), ("qworker/hooks.py", ["Hooks"])]),
    ("Enqueueing", [
        ("qworker/task.py", ["Task", "ConfiguredTask"]), ("qworker/options.py", ["Options"]),
        ("qworker/retry.py", ["Retry"]),
    ]),
    ("Jobs", [
        ("qworker/job.py", ["Job", "JobState"]), ("qworker/admin.py", ["Admin"]), ("qworker/named_queue.py", ["Queue"]),
        ("qworker/overview.py", ["Overview"]), ("qworker/status.py", None),
        ("qworker/queues.py", ["QueueStatus", "QueuePause"]),
        ("qworker/findings.py", ["Finding", "Severity"]),
        ("qworker/reasons.py", ["Explanation", "Reason", "QueuePosition", "Cause"]),
        ("qworker/actor.py", ["acting_as"]), ("qworker/audit.py", ["AuditEntry", "AuditQuery"]),
    ]),
    ("Inside a handler", [("qworker/context.py", ["RunningJob"])]),
    ("Typed payloads", [("qworker/codec.py", ["Codec"])]),
    ("Testing", [
        ("qworker/testing/drain.py", ["drain"]), ("qworker/testing/attempts.py", ["Attempt"]),
        ("qworker/testing/assertions.py", ["assert_enqueued", "refute_enqueued", "enqueued"]),
        ("qworker/testing/perform.py", ["perform"]), ("qworker/testing/travel.py", ["travel"]),
        ("qworker/testing/transaction.py", ["join"]), ("qworker/testing/truncation.py", ["truncate"]),
        ("qworker/testing/mock.py", ["MockQueue"]),
    ]),
    ("Exceptions", [("qworker/errors.py", None), ("qworker/nodes.py", ["NodeNotFound"])]),
]  # fmt: skip
#: What is public for other parts of qworker only.
INTERNAL = {
    "App": {"ambient", "enqueuing", "origins", "pool", "prepare", "register", "replace_enqueuing"},
    "Hooks": {"end_hooks", "error_hooks", "finding_hooks", "middlewares", "start_hooks", "stop_hooks"},
    "Admin": {"holder", "iterate", "unseen_holder", "wait"},
    "Task": {"run", "load", "app", "conversion", "parameters", "handler", "hook", "location", "defaults", "enqueuing"},
    "ConfiguredTask": {"many"},
    "Options": {"of", "merge"},
    "Retry": {"of", "from_json", "to_json", "allows", "delay", "delay_after"},
    "RunningJob": {"start", "borrowed_connection", "started", "deadline_at"},
    "MockQueue": {"one", "aone", "many"},
}  # fmt: skip
#: What is explained under another name.
TITLES = {"RunningJob": "current_job"}
_HIDDEN = {"Snooze"}
_COMMENT = re.compile(r"\s*#: ?(.*)")

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = ast.ClassDef | Function


def doctor_page() -> str:
    """Return the page of the doctor: what is packaged follows what is not."""
    checks = CHECKS.read_text()
    return DOCTOR.read_text().partition(checks.partition("\n")[0] + "\n")[0] + checks


def page() -> str:
    """Return the page."""
    parts = [HEAD]
    for title, files in SECTIONS:
        parts.append(f"## {title}\n")
        for file, names in files:
            parts += _file(QUEUE / file, names)
    return "\n".join(parts)


def _file(path: Path, names: list[str] | None) -> Iterator[str]:
    text = path.read_text()
    found = {node.name: node for node in ast.parse(text).body if isinstance(node, Definition) and not _overload(node)}
    for name in names if names is not None else [name for name in found if name[0] != "_" and name not in _HIDDEN]:
        yield from _define(found[name], text.splitlines())


def _define(node: Definition, lines: list[str]) -> Iterator[str]:
    title = TITLES.get(node.name, node.name)
    if isinstance(node, Function):
        yield f"### {title}\n\n**`{title}{_signature(node)}`**\n\n{_doc(node)}\n"
        return
    bases = ", ".join(
        ast.unparse(base) for base in node.bases if not ast.unparse(base).startswith(("Generic", "Protocol"))
    )
    yield f"### {title}\n\n{_doc(node)}\n" + (f"\nDerives from `{bases}`.\n" if bases else "")
    hidden = INTERNAL.get(node.name, set())
    entries = [entry for entry in _fields(node, lines) if entry[0] not in hidden]
    if entries:
        yield "| | |\n|---|---|\n" + "".join(f"| `{name}` | {_cell(text)} |\n" for name, text in entries)
    for method in node.body:
        if not isinstance(method, Function) or method.name[0] == "_" or method.name in hidden or _overload(method):
            continue
        if text := _doc(method):
            decorators = {ast.unparse(decorator) for decorator in method.decorator_list}
            signature = "" if "property" in decorators else _signature(method)
            word = "await " if isinstance(method, ast.AsyncFunctionDef) else ""
            yield f"**`{word}{method.name}{signature}`**\n\n{text}\n"


def _fields(node: ast.ClassDef, lines: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the attributes that have a comment `#:`, which may stand for several."""
    for statement in ast.walk(node):
        if isinstance(statement, ast.AnnAssign | ast.Assign):
            target = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
            name = (
                target.attr if isinstance(target, ast.Attribute) else target.id if isinstance(target, ast.Name) else "_"
            )
            if name[0] != "_" and (text := _comment(lines, statement.lineno - 1)):
                yield name, text


def _comment(lines: list[str], line: int) -> str:
    text: list[str] = []
    while (found := _COMMENT.fullmatch(lines[line - 1])) is not None:
        text.insert(0, found[1])
        line -= 1
    return " ".join(text)


def _overload(node: Definition) -> bool:
    return any(ast.unparse(decorator).endswith("overload") for decorator in node.decorator_list)


def _signature(node: Function) -> str:
    arguments = ast.parse(ast.unparse(node)).body[0]
    assert isinstance(arguments, Function)
    parameters = arguments.args
    for group in (parameters.posonlyargs, parameters.args):
        if group and group[0].arg in ("self", "cls"):
            del group[0]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    return f"({ast.unparse(parameters).removeprefix('/, ').removeprefix('/')}){returns}".replace("'", '"')


def _doc(node: Definition) -> str:
    return cleandoc(ast.get_docstring(node) or "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page())
    DOCTOR.write_text(doctor_page())
    sys.stdout.write(f"{PAGE} and {DOCTOR} are written\n")
