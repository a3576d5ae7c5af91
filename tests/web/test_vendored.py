"""Files of others are those that their authors have published, and templates bypass no escaping."""

import gzip
import hashlib
import re
import tomllib

from tests.environment import ROOT

WEB = ROOT / "workers" / "qworkerd" / "web"
ROW = re.compile(r"^\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|$", re.MULTILINE)
LISTED = dict(ROW.findall((ROOT / "THIRD-PARTY.md").read_text()))
#: What the policy of the pages would refuse, or what would be markup although it comes from a job.
FORBIDDEN = (
    r"\|\s*safe", r"autoescape", r"Markup", r"\bstyle=", r"\son[a-z]+=", r"<script(?![^>]* src=)", r"<style",
    r"javascript:", r"hx-on", r"hx-live",
)  # fmt: skip


def test_every_file_of_others_is_listed_with_its_hash() -> None:
    found = {
        str(path.relative_to(ROOT)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (WEB / "static" / "vendor").rglob("*")
        if path.is_file()
    }
    assert found == LISTED
    shipped = tomllib.loads((ROOT / ".ci" / "vendor.toml").read_text())["shipped"]
    assert sum(len(package["files"]) for package in shipped) == len(found)


def test_no_template_bypasses_the_escaping() -> None:
    templates = sorted((WEB / "templates").glob("*.html"))
    assert len(templates) > 3
    for path in templates:
        text = path.read_text()
        for forbidden in FORBIDDEN:
            assert not re.search(forbidden, text), f"{path.name}: {forbidden}"


def test_what_the_browser_loads_is_small() -> None:
    assert len(gzip.compress((WEB / "static" / "qworker.js").read_bytes())) <= 4_000
    assert len((WEB / "static" / "qworker.css").read_bytes()) <= 10_000


def test_every_class_of_the_stylesheets_is_used() -> None:
    """By a template, by a module that composes elements, or by a script."""
    sources = [
        path for pattern in ("templates/*.html", "static/*.js", "*.py", "texts/states.py") for path in WEB.glob(pattern)
    ]
    used = {word for path in sources for word in re.findall(r"[\w-]+", path.read_text(encoding="utf-8"))}
    for path in sorted((WEB / "static").glob("*.css")):
        rules = re.sub(r"\{[^{}]*}|/\*.*?\*/", " ", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        classes = {name.removeprefix("s-").removeprefix("c-") for name in re.findall(r"\.([a-z][\w-]*)", rules)}
        assert {name for name in classes - used if not name.startswith("level-")} == set(), path.name
