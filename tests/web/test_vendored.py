"""Files of others are those that their authors have published, and templates bypass no escaping."""

import hashlib
import re
import tomllib

import pytest

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


@pytest.mark.parametrize(("name", "limit"), [("qworker.js", 6_000), ("qworker.css", 10_000), ("charts.js", 4_000)])
def test_what_many_pages_load_is_small(name: str, limit: int) -> None:
    assert (WEB / "static" / name).stat().st_size <= limit


def test_no_page_loads_more_of_ours_than_it_needs() -> None:
    """What is for few pages is in files of their own; no file outgrows the one for all of them."""
    for path in (WEB / "static").glob("*.[cj]s*"):
        assert path.stat().st_size <= 10_000, path.name
        loading = [one for one in (WEB / "templates").glob("*.html") if f'asset("{path.name}")' in one.read_text()]
        assert loading, path.name
