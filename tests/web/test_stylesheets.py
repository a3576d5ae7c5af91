"""Each selector of the stylesheets matches something on a page that loads it, and each class of a page has a rule."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from flask import Flask

from qworkerd.web import users
from qworkerd.web.signin import SignIn
from qworkerd.web.texts import states
from tests.counted import add_sums
from tests.database import Database
from tests.environment import ROOT
from tests.web import realistic
from tests.web.browser import serving
from tests.web.planted import failed
from tests.web.screenshots import FURTHER as PICTURED
from tests.web.shop import shop
from tests.web.test_hostile import hostile
from tests.web.test_job import running, write_line

__all__ = ["hostile"]

STATIC = ROOT / "workers" / "qworkerd" / "web" / "static"
#: What a browser has read of the stylesheets of a page: the selectors of each, also of those for paper and phones.
RULES = """() => {
  const found = {}, walk = (rules, into) => [...rules].forEach((rule) => {
    if (rule.selectorText) into.push(rule.selectorText);
    if (rule.cssRules) walk(rule.cssRules, into);
  });
  for (const sheet of document.styleSheets) {
    const name = sheet.href.split('/').pop().split('?')[0];
    walk(sheet.cssRules, found[name] ??= []);
  }
  return found;
}"""
MATCHING = "(selectors) => selectors.filter((one) => document.querySelector(one))"
CLASSES = "() => [...new Set([...document.querySelectorAll('[class]')].flatMap((one) => [...one.classList]))]"
#: What an element is only while somebody uses it. These are left out of a selector.
PASSING = re.compile(
    r"::[\w-]+|:(hover|focus|focus-visible|checked|popover-open|-webkit-[\w-]+|-moz-[\w-]+)(?![\w-])|"
    r":not\(\s*\)|\[open(=\"\")?\]"
)
#: Classes that are made from a value: each value that there can be counts as one that there is.
VALUES = {
    "s": set(states.NAMES),
    "level": {"debug", "info", "warning", "error", "critical"},
    "c": {"completed", "failed", "retried", "cancelled", "lost", "waiting", "running", "p50", "p95", "p99", "other"},
}
#: Addresses besides those of the pictures.
FURTHER = (
    "/jobs/all?q=state:failed", "/jobs/all?action=discard", "/jobs?q=state:running", "/jobs?q=quee:x",
    "/jobs?q=args.n:5", "/jobs?q=args.order:60799", "/operations/1", "/errors?state=all", "/audit?actor=nobody",
    "/queue?name=reports", "/queues?find=nothing", "/task?name=shop.orders.send_receipt",
)  # fmt: skip
#: Classes by which scripts and tests find elements.
HOOKS = {"region", "number", "chart-shapes"}


def parts(text: str, separator: str = ",") -> list[str]:
    """Split a selector where it is not inside parentheses, brackets or quotes."""
    found, depth, quoted = [""], 0, False
    for sign in text:
        quoted ^= sign == '"'
        depth += (sign in "([") - (sign in ")]")
        if sign == separator and not depth and not quoted:
            found.append("")
        else:
            found[-1] += sign
    return [one.strip() for one in found]


def alternatives(selector: str) -> Iterator[str]:
    """Yield the selectors without `:is()` that a list of selectors means."""
    for one in parts(selector):
        begin = one.find(":is(")
        if begin < 0:
            yield one
            continue
        depth, end = 0, begin + 3
        for end in range(begin + 3, len(one)):
            depth += (one[end] == "(") - (one[end] == ")")
            if not depth:
                break
        for inner in parts(one[begin + 4 : end]):
            yield from alternatives(one[:begin] + inner + one[end + 1 :])


def lasting(selector: str) -> str:
    """Return a selector without what holds only for a moment, and without values that there can be."""
    before = None
    while before != selector:
        before, selector = selector, PASSING.sub("", selector)
    for prefix, values in VALUES.items():
        selector = re.sub(rf"\.{prefix}-({'|'.join(values)})(?![\w-])", "", selector)
    selector = re.sub(r"\(\s*\)", "(*)", selector.strip())
    selector = re.sub(r"([>+~])\s*(?=$|[)>+~])", r"\1 *", selector)
    return re.sub(r"^(?=$|[>+~])", "*", selector)


def known(rules: dict[str, list[str]]) -> set[str]:
    return {
        name for selectors in rules.values() for one in selectors for name in re.findall(r"\.([A-Za-z][\w-]*)", one)
    }


#: What makes pages show what a shop does not have: a group that was resolved, a dead node, a queue
#: without workers, a lonely point of a chart.
RARE = """
UPDATE qworker.error_group SET reopened_at = now(), reopened_release = '7' WHERE fingerprint = 77;
UPDATE qworker.node SET heartbeat_at = now() - interval '1 hour', lease_seconds = 60 WHERE id = 2;
INSERT INTO qworker.job (queue, task, enqueued_at) VALUES ('hermit', 'shop.live', now() - interval '1 day');
DELETE FROM qworker.stat AS s USING qworker.series AS n
 WHERE n.id = s.series AND n.queue = 'reports'
   AND (s.width > 1 OR s.at NOT BETWEEN now() - interval '10 minutes' AND now() - interval '9 minutes');
"""


@pytest.fixture
def filled(database: Database, make_dashboard: Callable[..., Flask], request: pytest.FixtureRequest) -> Iterator[Flask]:
    """The dashboard with each thing that a page can show."""
    realistic.fill(database.dsn)
    request.getfixturevalue("hostile")
    with database.connect() as conn:
        conn.execute(RARE)
        add_sums(conn)
    app = shop(database.dsn)

    @app.task(name="shop.orders.refund", queue="checkout")
    def refund(order: int, reason: Literal["broken", "late"], amounts: list[int]) -> None:
        """Pay back."""

    yield make_dashboard(app)
    app.close()


def open_all(page: Any) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")


def sign_in(page: Any) -> Iterator[None]:
    page.goto("/")
    page.get_by_label("Password").wait_for()
    yield


def without_data(page: Any) -> Iterator[None]:
    page.goto("/")
    yield
    page.goto("/doctor")
    page.locator(".empty.good").wait_for()
    yield


def tour(page: Any, database: Database) -> Iterator[None]:
    """Go to each page, and into each state that changes its elements."""
    _, number = running(database)
    lines = [{"timestamp": "2026-11-27T12:00:01Z", "level": "warning", "event": "slow", "exception": "Boom"}]
    errors = [{"type": "Boom", "message": "no such order " * 30, "attempt": n, "logs": lines} for n in (1, 2)]
    plain = failed(database, attempt=2, args={"n": 1}, errors=errors)
    single = (f"/jobs/{plain}", "/jobs/3002", "/jobs/800", f"/jobs/{number}", "/errors/0000000000000007")
    page.goto("/")
    found = page.evaluate("[...document.querySelectorAll('nav [data-key]')].map((one) => one.getAttribute('href'))")
    for path in (*found, *PICTURED.values(), *single, *FURTHER):
        page.goto(path)
        if path == "/doctor":
            page.locator(".finding").first.wait_for()
        open_all(page)
        yield
        if path == f"/jobs/{number}":
            page.get_by_role("button", name="Follow the log").click()
            page.get_by_text("No lines yet.").wait_for()
            write_line(database, number, "half of it is done")
            page.get_by_text("half of it is done").wait_for()
            yield
    yield from use(page)


def use(page: Any) -> Iterator[None]:
    """Do what gives elements to a page, or attributes to elements."""
    page.goto("/")
    page.locator(".chart-plot").first.hover()
    page.locator(".chart-plot").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    page.locator(".chart-brush").wait_for()
    yield
    page.keyboard.press("j")
    for theme in ("light", "dark"):
        page.get_by_label("Theme").select_option(theme)
        yield
    page.goto("/jobs?q=state:failed")
    page.get_by_role("button", name="Save view").click()
    page.get_by_label("Filter").fill("")
    page.get_by_label("Filter").press_sequentially("qu")
    page.locator(".offers li").first.wait_for()
    page.keyboard.press("ArrowDown")
    yield
    page.goto("/queues")
    page.get_by_role("button", name="Resume mail").or_(page.get_by_role("button", name="Resume")).first.click()
    page.locator(".notice.good").wait_for()
    yield
    page.goto("/task?name=shop.orders.refund")
    page.get_by_role("button", name="Enqueue").click()
    page.get_by_text("Nothing was enqueued").wait_for()
    yield


class Seen:
    """What the pages have shown so far."""

    def __init__(self) -> None:
        #: By stylesheet: the selectors that have matched nothing yet, as they are written, with what is asked for.
        self.left: dict[str, dict[str, str]] = {}
        self.classes: defaultdict[str, set[str]] = defaultdict(set)

    def look(self, page: Any) -> None:
        rules: dict[str, list[str]] = page.evaluate(RULES)
        for sheet, texts in rules.items():
            if sheet not in self.left:
                self.left[sheet] = {one: lasting(one) for text in texts for one in alternatives(text)}
            left = self.left[sheet]
            found = set(page.evaluate(MATCHING, list(left.values())))
            self.left[sheet] = {one: asked for one, asked in left.items() if asked not in found}
        for name in set(page.evaluate(CLASSES)) - known(rules) - HOOKS:
            if name.partition("-")[2] not in VALUES.get(name.partition("-")[0], ()):
                self.classes[name].add(page.url)


def test_each_selector_matches_something_and_each_class_has_a_rule(
    browser: Any, make_dashboard: Callable[..., Flask], database: Database, request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    users.write(tmp_path / "users", "anna", users.hash_password("correct horse"), "all")
    # A search that has to go on.
    monkeypatch.setattr("qworker.search.SLICE", 2)
    monkeypatch.setattr("qworkerd.web.pages.jobs.QUICK", 0)
    seen = Seen()
    empty, locked = make_dashboard(), make_dashboard(access=SignIn(tmp_path / "users"))
    for make, walk in (
        (lambda: empty, without_data),
        (lambda: locked, sign_in),
        (lambda: request.getfixturevalue("filled"), lambda page: tour(page, database)),
    ):
        with monkeypatch.context() as patch, serving(make()) as url:
            if walk is without_data:  # a doctor that finds nothing, whatever the server of the tests is like
                patch.setattr("qworkerd.web.health.select", lambda *_, **__: ())
            context = browser.new_context(base_url=url, reduced_motion="reduce")
            context.set_default_timeout(30_000)
            page = context.new_page()
            for _ in walk(page):
                seen.look(page)
            context.close()
    assert set(seen.left) == {path.name for path in STATIC.glob("*.css")}
    dead = [f"{sheet}: {one}" for sheet, left in seen.left.items() for one in left]
    unknown = [f"{name}: {min(urls)}" for name, urls in seen.classes.items()]
    assert dead + unknown == [], "\n".join(dead + unknown)


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("a:hover", ["a"]),
        (".x > :checked", [".x > *"]),
        ("::backdrop", ["*"]),
        (":is(.a, .b:focus) i", [".a i", ".b i"]),
        (".code:has(> .copy) pre", [".code:has(> .copy) pre"]),
        ("tr:not(:has(.y:checked))", ["tr:not(:has(.y))"]),
        (".s-running.badge::before", [".badge"]),
        ("details[open]:not(:hover), i", ["details", "i"]),
        ('i[data-x="a,b"]:focus-visible', ['i[data-x="a,b"]']),
    ],
)
def test_of_a_selector_what_lasts_is_asked_for(written: str, asked: list[str]) -> None:
    assert [lasting(one) for one in alternatives(written)] == asked
