"""Nothing jumps when a page is refreshed, also when its numbers grow from 9 to 10,000."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from flask import Flask

from tests.counted import add_sums
from tests.database import Database
from tests.waiting import until
from tests.web.browser import serving
from tests.web.conftest import Clock
from tests.web.shop import shop

SCENE = """
INSERT INTO qworker.node (id, name, version, queues, worker_count, lease_seconds, heartbeat_at)
VALUES (1, 'web1.shop.example:4001', '1', '{mail,images}', 4, 86400, now());
INSERT INTO qworker.series (id, queue, task) OVERRIDING SYSTEM VALUE
VALUES (1, 'mail', 'shop.mail.welcome'), (2, 'images', 'shop.images.resize');
INSERT INTO qworker.cron (name, task, expression, timezone, last_tick, declared_by)
VALUES ('nightly-report', 'shop.reports.nightly', '0 3 * * *', 'Europe/Berlin', now(), 1);
INSERT INTO qworker.error_group (fingerprint, count, first_seen, last_seen, first_job, task, type, message, queues,
                                 samples)
VALUES (7, 1, now(), now(), 1, 'shop.mail.welcome', 'KeyError', 'name', '{mail}', '{1}');
INSERT INTO qworker.operation (id, action, filter, upper_id, below, actor, expected) OVERRIDING SYSTEM VALUE
VALUES (1, 'retry', 'state:failed', 9, 5, 'anna', 90000);
-- More than a page has: with fewer, rows are added.
INSERT INTO qworker.job (id, queue, task, state, attempt, failed_at, fingerprint)
SELECT i, 'mail', 'shop.mail.welcome', 'failed', 9, now() - interval '1 minute', 7 FROM generate_series(1, 60) AS i;
"""
#: What grows: sizes and ages of queues, counts, percentiles, workers, errors, operations, the audit and jobs.
GROW = """
INSERT INTO qworker.depth (at, queue, available, due, scheduled, running, failed, oldest, exact)
SELECT now(), queue, %(n)s, 0, %(n)s, %(n)s, %(n)s, %(n)s, true FROM unnest(ARRAY['mail', 'images', '']) AS queue;
DELETE FROM qworker.stat;
INSERT INTO qworker.stat (width, at, series, succeeded, retried, raised, timed_out, oom, failed, cancelled, run_seconds,
                          wait_seconds, run_histogram, wait_histogram)
SELECT 1, date_trunc('minute', now()) - interval '3 minutes', id, %(n)s, %(n)s, %(n)s, %(n)s, %(n)s, %(n)s, %(n)s,
       %(n)s, %(n)s, h.times, h.times
  FROM qworker.series, qworker.histogram(ARRAY[20 + %(n)s / 400], ARRAY[%(n)s]) AS h (times);
UPDATE qworker.node SET heartbeat_at = now(), state = jsonb_build_object(
    'last_death', jsonb_build_object('worker', 1, 'pid', %(n)s, 'cause', 'oom', 'count', %(n)s, 'ago', 5),
    'workers', (SELECT jsonb_agg(jsonb_build_object('worker', w, 'pid', %(n)s, 'phase', 'idle', 'jobs_done', %(n)s,
                                                    'rss_mib', %(n)s / 10)) FROM generate_series(0, 3) AS w));
UPDATE qworker.error_group SET count = %(n)s;
INSERT INTO qworker.error_stat (fingerprint, at, count)
VALUES (7, date_bin('10 minutes', now(), '2000-01-01') - interval '10 minutes', %(n)s)
    ON CONFLICT (fingerprint, at) DO UPDATE SET count = excluded.count;
UPDATE qworker.operation SET done = %(n)s, skipped = %(n)s, failed = %(n)s;
INSERT INTO qworker.audit (actor, via, action, target, jobs)
SELECT 'anna', 'web', 'job.retry', '{"queues": ["mail"]}', %(n)s FROM generate_series(1, 60);
INSERT INTO qworker.job (id, queue, task, state, attempt, failed_at, fingerprint)
SELECT i, 'mail', 'shop.mail.welcome', 'failed', %(n)s, now() - interval '1 minute', 7
  FROM generate_series((SELECT max(id) FROM qworker.job) + 1, %(n)s) AS i;
"""
#: The pages that are refreshed, and what they show when they have been.
PAGES = {
    "/": "10,000", "/queues": "10,000", "/queue?name=mail": "10k", "/jobs": "10,000 jobs",
    "/jobs?q=queue:mail": "10000", "/jobs/1": None, "/errors": "10k", "/errors/0000000000000007": "10k",
    "/workers": "10,000", "/schedules": None, "/tasks": "50,000", "/task?name=shop.mail.welcome": "50k",
    "/operations": "30,000 of 90,000", "/operations/1": "30,000 of 90,000", "/audit": "10,000", "/doctor": None,
}  # fmt: skip
#: The boxes of a page by their places in the tree; letters within a line are no box.
BOXES = """() => {
  const found = {}, inside = (one, path) => [...one.children].forEach((child, at) => {
    const name = `${path} > ${child.localName}${child.className && `.${child.className}`}:${at}`;
    const {x, y, width, height} = child.getBoundingClientRect();
    if (!child.matches('a, abbr, b, bdi, br, code, i, span, strong, time') && height)
      found[name] = [x, y + scrollY, width, height].map((side) => Math.round(side * 4) / 4);
    if (!child.matches('svg, details:not([open])')) inside(child, name);
  });
  inside(document.querySelector('main'), '');
  return found;
}"""
COUNT = "document.addEventListener('htmx:after:request', () => (window.answers = (window.answers ?? 0) + 1))"
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


def grow(database: Database, number: int) -> None:
    with database.connect() as conn:
        psycopg.ClientCursor(conn).execute(GROW, {"n": number})
        add_sums(conn)


@pytest.mark.parametrize("size", SIZES)
def test_nothing_moves_when_numbers_grow(
    browser: Any, clock: Clock, database: Database, make_dashboard: Callable[..., Flask],
    monkeypatch: pytest.MonkeyPatch, size: str,
) -> None:  # fmt: skip
    # Findings come and go: that is no number that grows.
    monkeypatch.setattr("qworkerd.web.health.PERIOD", 1e9)
    database.connect().execute(SCENE)
    app, moved = shop(database.dsn), []
    with serving(make_dashboard(app)) as url:
        width, height = SIZES[size]
        context = browser.new_context(base_url=url, viewport={"width": width, "height": height})
        context.set_default_timeout(30_000)
        tabs = {path: context.new_page() for path in PAGES}
        grow(database, 9)
        tabs["/doctor"].goto("/doctor")
        tabs["/doctor"].locator(".finding, .empty.good").first.wait_for()
        for path, page in tabs.items():
            page.goto(path)
            assert page.locator(".region[data-every]").count(), f"{path} is not refreshed"
            page.evaluate(COUNT)
        before = {path: page.evaluate(BOXES) for path, page in tabs.items()}
        grow(database, 10_000)
        for path, page in tabs.items():
            refresh(page, clock, PAGES[path])
            after = page.evaluate(BOXES)
            same = before[path].keys() & after.keys()
            assert len(same) > 3, path
            moved += [
                f"{path}{one}: {before[path][one]} {after[one]}"
                for one in sorted(same)
                if apart(before[path][one], after[one])
            ]
        context.close()
    app.close()
    assert moved == [], "\n".join(moved[:400])


def apart(first: list[float], second: list[float]) -> bool:
    """Whether a side differs by what is seen: a part of a pixel is not, of which browsers distribute what is left."""
    return any(abs(one - other) >= 1 for one, other in zip(first, second, strict=True))


def refresh(page: Any, clock: Clock, expected: str | None) -> None:
    """Let all regions of a page be asked for, and those that have changed be shown."""
    regions = page.locator(".region[data-every]").count()

    def shown() -> bool:
        clock.now += 100
        asked = page.evaluate("window.answers ?? 0")
        page.keyboard.press("r")
        until(lambda: page.evaluate("window.answers ?? 0") >= asked + regions)
        return expected is None or expected in page.locator("main").inner_text()

    until(shown, 20.0, lambda: f"{page.url} does not show {expected}: {page.locator('main').inner_text()}")
