"""That what the dashboard says stands in one place: `qworkerd.web.texts`."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest
from flask import Flask
from jinja2 import Environment, nodes
from markupsafe import Markup

from qworkerd.web import texts
from qworkerd.web.formats import fill
from tests.database import Database
from tests.web import translated

WEB = Path(str(files("qworkerd.web")))
TEMPLATES = sorted((WEB / "templates").glob("*.html"))
SCRIPTS = sorted((WEB / "static").glob("*.js"))
MODULES = sorted(path for path in WEB.rglob("*.py") if path.parent.name != "texts")

#: Attributes that are read or heard.
SHOWN = {"title", "aria-label", "aria-description", "placeholder", "alt", "label", "data-label", "data-confirm"}
#: What templates say in every language: our name, keys of the keyboard, a parameter of the API, an option, a format.
NAMES = {"qworker", "g", "j", "k", "x", "r", "Enter", "on_failure", "--queues", "%H:%M:%S.%f"}
#: Strings of scripts with a capital letter or several words that nobody sees: names of keys and headers, a locale whose
#: times are written like those of the server, and its zone.
UNSEEN = {"use strict", "Enter", "Tab", "Escape", "ArrowDown", "ArrowUp", "ETag", "If-None-Match", "sv-SE", " UTC"}
#: The elements of tables, by which scripts find them.
SELECTOR = re.compile(r"[.\w]* ?(?:tbody|thead) \w+(?:\[[\w=]+])?")
#: Modules whose errors are for the operator who starts the dashboard, at the terminal.
AT_THE_TERMINAL = {"access.py", "flask.py", "proxies.py", "server.py", "sessions.py", "users.py"}
#: What is called with a text first, or second; and the arguments that are texts.
FIRST = {"Done", "Forbidden", "InvalidParameter", "InvalidOperation", "NotFound", "Unauthorized", "TooManyRequests"}
SECOND, KEYWORDS = {"Entry", "_error"}, {"title", "label", "message"}
#: Values of headers.
HEADERS = {'attachment; filename="', "noindex, nofollow", "public, max-age=31536000, immutable"}
SENTENCE = re.compile(r"[A-Za-z]{2,}[,.:;]? +[A-Za-z]")
#: Filters, policies, and classes of charts.
LOOKS_UNSEEN = re.compile(r"\w:\S|'self'|\bc-")
MARKUP = re.compile(r'<[^>]*>|[\w-]+="[^"]*"')


class Visible(HTMLParser):
    """Collects what is seen or heard of a page: texts, and values of attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.found += [value for name, value in attrs if value and name in SHOWN]

    def handle_data(self, data: str) -> None:
        # Attributes that are composed before their element.
        self.found += [value for name, value in re.findall(r'([\w-]+)="([^"]*)"', data) if name in SHOWN]
        self.found.append(MARKUP.sub(" ", data))


def said(source: str, env: Environment) -> list[str]:
    """Return what a template says by itself: in its text, and in strings that it inserts there or passes on."""
    tree, html, inserted, found = env.parse(source), "", list[nodes.Node](), list[str]()
    for part in (part for output in tree.find_all(nodes.Output) for part in output.nodes):
        if isinstance(part, nodes.TemplateData):
            html += part.data
        else:
            html += f"\0{len(inserted)}\0"
            inserted.append(part)
    visible = Visible()
    visible.feed(html)
    visible.close()
    for text in visible.found:
        found += re.split(r"\0\d+\0|\s+", text)
        found += [value for number in re.findall(r"\0(\d+)\0", text) for value in strings(inserted[int(number)])]
    passed = [node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)]
    found += [text for text in passed if re.match(r"[A-Z]", text) or (SENTENCE.search(text) and ":" not in text)]
    return [text for text in found if re.search(r"[^\W\d_]", text) and text not in NAMES]


def strings(node: nodes.Node) -> Iterator[str]:
    """Yield the strings that an expression may write."""
    if isinstance(node, nodes.Const) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, nodes.CondExpr):
        for branch in filter(None, (node.expr1, node.expr2)):
            yield from strings(branch)
    elif isinstance(node, (nodes.Concat, nodes.Or, nodes.And, nodes.Add)):
        for part in node.iter_child_nodes():
            yield from strings(part)
    elif isinstance(node, nodes.Filter) and node.node is not None and node.name != "format":
        yield from strings(node.node)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_no_template_has_a_text(dashboard: Flask, path: Path) -> None:
    assert said(path.read_text(encoding="utf-8"), dashboard.jinja_env) == []


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("<p>Nothing here</p>", "Nothing"),
        ('<a title="More">{{ data }}</a>', "More"),
        ('<td data-label="{{ x }} jobs"></td>', "jobs"),
        ('{{ "yes" if x else "no" }}', "no"),
        ('{{ x ~ " of " ~ y }}', " of "),
        ('<b aria-label="{{ "run" if x }}"></b>', "run"),
        ('{{ ui.empty("No jobs.") }}', "No jobs."),
        ('{% set x = "to be retried" %}', "to be retried"),
        ('{% set x %}aria-label="again"{% endset %}', "again"),
        ("{% if x %}&copy; us{% endif %}", "us"),
    ],
)
def test_a_text_in_a_template_is_found(dashboard: Flask, template: str, text: str) -> None:
    assert text in said(template, dashboard.jinja_env)


def test_what_no_language_changes_is_not_taken_for_text(dashboard: Flask) -> None:
    template = (
        '<p class="notice {{ "bad" if x }}">qworker {{ t.words.JOBS }} {{ link.jobs("state:failed task:x") }}: 7</p>'
    )
    assert said(template, dashboard.jinja_env) == []


def of_script(source: str) -> list[str]:
    """Return the strings of a script that may be texts."""
    code = re.sub(r"(?m)^\s*//.*$", "", source)
    found = re.findall(r"\"((?:[^\"\\\n]|\\.)*)\"|'((?:[^'\\\n]|\\.)*)'|`([^`]*)`", code)
    known = [re.sub(r"\$\{[^}]*}", "", "".join(parts)) for parts in found]
    texts = [text for text in known if re.search(r"[A-Z][A-Za-z]|[A-Za-z] +[A-Za-z]", text)]
    return [text for text in texts if text not in UNSEEN and not SELECTOR.fullmatch(text.removeprefix("main "))]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_no_script_has_a_text(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert of_script(source) == []
    # One word in small letters looks like a name: it is never written where people see it.
    assert not re.search(r"(?:textContent|innerText|title|ariaLabel|placeholder) = [\"'`]\w", source)
    assert not re.search(r"setAttribute\([\"'](?:aria-label|title|placeholder)[\"'], [\"'`]", source)


def test_a_text_in_a_script_is_found() -> None:
    assert of_script("a.textContent = 'Copied'; say(`${n} are selected`); f(\"due now\")") == [
        "Copied", " are selected", "due now",
    ]  # fmt: skip


def of_module(source: str) -> list[str]:
    """Return the strings of a module that are texts."""
    tree, found = ast.parse(source), list[str]()
    docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
            if SENTENCE.search(MARKUP.sub("", node.value)) and not LOOKS_UNSEEN.search(node.value):
                found.append(node.value)
        elif isinstance(node, ast.Call):
            found += [text for text in passed_on(node) if re.search(r"[A-Za-z]{2}", text)]
    return [text for text in found if text not in HEADERS]


def passed_on(call: ast.Call) -> Iterable[str]:
    """Yield the strings with which something is called that shows them."""
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    given = [keyword.value for keyword in call.keywords if keyword.arg in KEYWORDS]
    given += call.args[:1] * (name in FIRST) + call.args[1:2] * (name in SECOND)
    for value in given:
        parts = value.values if isinstance(value, ast.JoinedStr) else [value]
        yield from (part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str))


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.name not in AT_THE_TERMINAL], ids=lambda path: path.stem
)  # fmt: skip
def test_no_module_has_a_text(path: Path) -> None:
    assert of_module(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        'raise NotFound(f"nothing {x}")',
        'page(blueprint, "/x", title="Jobs")',
        'x = f"{n} jobs match"',
        'f("a b cd ef")',
    ],
)
def test_a_text_in_a_module_is_found(source: str) -> None:
    assert len(of_module(f'"""Of the module itself."""\n{source}')) == 1


def named() -> set[tuple[str, str]]:
    """Return what templates and modules use, as module and name."""
    sources = [path.read_text(encoding="utf-8") for path in [*TEMPLATES, *MODULES]]
    return {found for source in sources for found in re.findall(r"\b(?:t|texts)\.([a-z]+)\.([A-Za-z]\w*)", source)}


def test_every_text_that_is_named_exists_and_every_one_is_used() -> None:
    known = {(module, name) for module in texts.__all__ for name in translated.names(getattr(texts, module))}
    assert known == named()


def test_places_are_filled_with_escaped_values() -> None:
    assert fill("<{x}> & {y}", x="<b>", y=Markup("<i>1</i>")) == "&lt;&lt;b&gt;&gt; &amp; <i>1</i>"
    assert fill("{x}", x="{y} %s {0.__class__}") == "{y} %s {0.__class__}"


def test_another_language_reaches_every_text_of_every_page(database: Database) -> None:
    """Run in a process of its own, because modules read the texts when they are imported."""
    command = [sys.executable, "-m", "tests.web.translated", database.dsn]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0, found.stderr
    pages = json.loads(found.stdout)
    assert len(pages) > 20
    for address, html in pages.items():
        visible = Visible()
        visible.feed(translated.without_foreign(html))
        visible.close()
        words = [word for text in visible.found for word in re.findall(r"[A-Za-z_@.-]*[A-Za-z]{2,}[\w.-]*", text)]
        assert set(words) <= translated.UNTRANSLATED, address
