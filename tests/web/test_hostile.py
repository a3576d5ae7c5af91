"""Whatever a job, a node or a schedule contains is text on every page: no markup, no script, no broken layout."""

import json
import re
from typing import Any

import psycopg
import pytest
from flask.testing import FlaskClient
from psycopg.types.json import Jsonb

from tests.database import Database
from tests.web.browser import serving
from tests.web.test_every_page import NAMES, addresses

__all__ = ["addresses"]

MARKUP = '"><svg onload=alert(1)>'
NAMES_OF_QUEUES = (
    MARKUP,
    "{{7*7}}{% raw %}",
    "javascript:alert(1)",
    "a/../b?c#d%2f&x=1",
    "\u202egnp.exe",
    "=1+1",
    "x" * 200,
)
ERROR = {
    "type": f"Boom{MARKUP}", "message": f"{MARKUP}\x1b[31mred\x1b[0m\u202e",
    "traceback": f"Traceback\n{MARKUP}\n" + "x" * 5_000, "attempt": 1,
    "at": "2026-01-31T09:00:00.000+00:00", "logs": [MARKUP],
}  # fmt: skip
ARGS = {
    MARKUP: MARKUP, "huge": 2**63 + 1, "password": "hunter2hunter2", "list": [[[[MARKUP]]]], "long": "y" * 20_000,
}  # fmt: skip
STATE = {
    "workers": [{"number": MARKUP, "pid": MARKUP, "task": MARKUP, "phase": MARKUP}], "cron": [MARKUP],
    "last_death": {"cause": MARKUP},
}  # fmt: skip
INSERT = """
    INSERT INTO qworker.job (state, queue, task, args, errors, tags, attempt, failed_at, fingerprint, meta)
    VALUES (%(state)s, %(name)s, %(name)s, %(args)s, %(errors)s, %(tags)s, 1, %(failed_at)s, 7, %(meta)s)
    RETURNING id
"""


@pytest.fixture
def hostile(database: Database) -> list[int]:
    """Fill the database with what a producer, a node or a person can write; return the ids of jobs."""
    found = []
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        for name in NAMES_OF_QUEUES:
            values = {
                "name": name, "args": Jsonb(ARGS), "errors": Jsonb([ERROR]), "tags": [MARKUP, "\u202etag"],
                "meta": Jsonb({"cron": MARKUP}),
            }  # fmt: skip
            for state, at in (("available", None), ("failed", "2026-01-31T09:00:00+00")):
                row = conn.execute(INSERT, values | {"state": state, "failed_at": at}).fetchone()
                assert row
                found.append(row[0])
            conn.execute("INSERT INTO qworker.queue VALUES (%s, now(), %s, %s)", [name, MARKUP, MARKUP])
            conn.execute("INSERT INTO qworker.depth VALUES (now(), %s, 10000000, 0, 1, 1, 1, 9e9, false)", [name])
            conn.execute("INSERT INTO qworker.series (queue, task) VALUES (%s, %s)", [name, name])
            conn.execute(
                "INSERT INTO qworker.cron (name, task, expression, timezone, declared_by)"
                " VALUES (%s, %s, %s, 'UTC', 1)",
                [name, name, MARKUP],
            )
        conn.execute(
            "INSERT INTO qworker.node (name, version, queues, worker_count, lease_seconds, state)"
            " VALUES (%s, %s, %s, 1, 60, %s)",
            [MARKUP, MARKUP, [MARKUP], Jsonb(STATE)],
        )
        conn.execute(
            "INSERT INTO qworker.audit (actor, via, action, target, note) VALUES (%s, 'api', 'job.retry', %s, %s)",
            [MARKUP, Jsonb({"queues": [MARKUP]}), MARKUP],
        )
        conn.execute(
            "INSERT INTO qworker.error_group (fingerprint, count, first_seen, last_seen, first_job, task, type,"
            " message, frame, queues, samples)"
            " VALUES (7, 1, now(), now(), 1, %(m)s, %(m)s, %(m)s, %(m)s, ARRAY[%(m)s::text], ARRAY[1::bigint])",
            {"m": MARKUP},
        )
        conn.execute(
            "INSERT INTO qworker.operation (action, filter, upper_id, below, actor, note, error)"
            " VALUES ('retry', %(m)s, 1, 1, %(m)s, %(m)s, %(m)s)", {"m": MARKUP},
        )  # fmt: skip
    return found


def single(ids: list[int]) -> list[tuple[str, dict[str, str]]]:
    """Return the addresses of single things, with their parameters."""
    named = [(path, {"name": name}) for path in ("/queue", "/task") for name in NAMES_OF_QUEUES]
    return [*((f"/jobs/{number}", {}) for number in ids), *named, ("/errors/0000000000000007", {}),
            ("/jobs/compare", {"a": str(ids[0]), "b": str(ids[-1])})]  # fmt: skip


def test_every_page_shows_it_as_text(client: FlaskClient, addresses: dict[str, str], hostile: list[int]) -> None:
    for address, query in [*((address, {}) for address in addresses.values()), *single(hostile)]:
        for suffix in ("", ".json") if address != "/" else ("",):
            answer = client.get(address + suffix, query_string=query)
            body = answer.get_data(as_text=True)
            assert answer.status_code in {200, 404}, (address, query, body[:300])
            if not suffix:
                assert "<svg onload" not in body, (address, query)
                assert "49{%" not in body
            # What a browser sends, but does not show, has the name as it is.
            assert "\u202e" not in re.sub(r'(value|data-[a-z-]+)="[^"]*"', "", body), (address, query)
            assert "hunter2" not in body, (address, query)
            assert "\x1b" not in body


def test_an_integer_is_exact_and_a_cell_is_no_formula(client: FlaskClient, hostile: list[int]) -> None:
    assert str(2**63 + 1) in client.get(f"/jobs/{hostile[0]}").get_data(as_text=True)
    assert json.loads(client.get(f"/jobs/{hostile[0]}.json").data)
    for line in client.get("/overview.csv").get_data(as_text=True).splitlines():
        assert not line.startswith(("=", "+", "@", "-"))


def test_a_browser_runs_none_of_it(
    browser: Any, client: FlaskClient, addresses: dict[str, str], hostile: list[int]
) -> None:
    wrong: list[str] = []
    with serving(client.application) as url:
        context = browser.new_context(base_url=url, viewport={"width": 390, "height": 800})
        context.set_default_timeout(30_000)
        page = context.new_page()
        page.on("dialog", lambda dialog: wrong.append(f"{page.url}: a dialog says {dialog.message}"))
        page.on("pageerror", lambda error: wrong.append(f"{page.url}: {error}"))
        page.on("console", lambda said: wrong.append(f"{page.url}: {said.text}") if said.type == "error" else None)
        for address in (
            *addresses.values(),
            f"/jobs/{hostile[0]}",
            f"/jobs/{hostile[1]}",
            f"/jobs/compare?a={hostile[1]}&b={hostile[-2]}",
        ):
            page.goto(address)
            page.keyboard.press("r")
            if page.evaluate("document.querySelectorAll('[onload], svg[onload]').length"):
                wrong.append(f"{address}: markup of a job")
            if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                wrong.append(f"{address}: wider than the window")
        context.close()
    assert wrong == []
    assert set(addresses) <= set(NAMES)
