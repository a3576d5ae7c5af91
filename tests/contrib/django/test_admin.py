"""The pages of jobs, schedules and nodes in Django's admin, as a browser gets them."""

import html
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from qworker.contrib.django import discovery
from qworker.contrib.django.admin import changelist
from qworker.contrib.django.api import task_backends
from qworker.contrib.django.models import Job
from tests.contrib.django.test_models import store
from tests.database import Database

JOBS = "/admin/qworker/job/"


@pytest.fixture
def conn(site: Path, database: Database) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the database, with the tables of Django beside those of qworker."""
    call_command("migrate", verbosity=0)
    yield database.connect()
    User.objects.all().delete()


@pytest.fixture
def browser(conn: psycopg.Connection[Any]) -> Client:
    """The browser of a superuser."""
    client = Client()
    client.force_login(User.objects.create_superuser("ada", "ada@example.com", "x"))
    return client


@pytest.fixture
def as_user(conn: psycopg.Connection[Any]) -> Callable[..., Client]:
    """Return the browser of a user with permissions."""

    def as_user(*permissions: str) -> Client:
        user = User.objects.create_user("grace", is_staff=True)
        found = Permission.objects.filter(content_type__app_label="qworker", codename__in=permissions)
        assert len(found) == len(permissions)
        user.user_permissions.set(found)
        client = Client()
        client.force_login(user)
        return client

    return as_user


def text(browser: Client, url: str, code: int = 200) -> str:
    response = browser.get(url)
    assert response.status_code == code
    return str(response.content.decode())


def listed(page: str) -> list[int]:
    """Return the ids in a list of jobs."""
    return [int(found) for found in re.findall(r'name="_selected_action" value="(\d+)"', page)]


def messages(response: Any) -> list[str]:
    (found,) = re.findall(r'<ul class="messagelist">(.*?)</ul>', response.content.decode(), re.DOTALL) or [""]
    return [html.unescape(message) for message in re.findall(r"<li[^>]*>(.*?)</li>", found, re.DOTALL)]


def state_of(job_id: int) -> str:
    return str(Job.objects.get(pk=job_id).state)


# The list


def test_jobs_are_listed_newest_first_with_their_last_error(browser: Client, conn: psycopg.Connection[Any]) -> None:
    done = store(conn, "completed", queue="mail")
    failed = store(conn, errors='[{"type": "KeyError", "message": "a"}, {"type": "OSError", "message": "<b>disk</b>"}]')
    page = text(browser, JOBS)
    assert listed(page) == [failed, done]
    assert "OSError: &lt;b&gt;disk&lt;/b&gt;" in page
    assert "2 jobs" in page


def test_the_list_leaves_out_what_may_be_large(browser: Client, conn: psycopg.Connection[Any]) -> None:
    store(conn, args='{"x": "a secret of a megabyte"}')
    with CaptureQueriesContext(connection) as queries:
        assert "a secret" not in text(browser, JOBS)
    (read,) = [query["sql"] for query in queries if "error_type" in query["sql"]]
    for column in changelist.LARGE:
        assert f'"jobs"."{column}",' not in read


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("state=failed", {"failed", "tagged"}), ("state=completed", {"done"}), ("queue=mail", {"done"}),
        ("task=shop.other", {"tagged"}), ("tag=vip", {"tagged"}), ("tag=vip&state=completed", set()),
        ("enqueued=hour", {"failed", "tagged"}), ("enqueued=day", {"failed", "tagged", "done"}),
        ("enqueued=week&state=completed", {"done"}), ("enqueued=bad", set()),
    ],
)  # fmt: skip
def test_filters(browser: Client, conn: psycopg.Connection[Any], query: str, found: set[str]) -> None:
    ids = {
        "failed": store(conn),
        "tagged": store(conn, task="shop.other", tags=["vip"]),
        "done": store(conn, "completed", queue="mail", enqueued_at=datetime.now(UTC) - timedelta(hours=2)),
    }
    assert set(listed(text(browser, f"{JOBS}?{query}"))) == {ids[name] for name in found}


def test_today_begins_at_the_midnight_of_the_time_zone_of_django(
    browser: Client, conn: psycopg.Connection[Any]
) -> None:
    midnight = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    store(conn, enqueued_at=midnight - timedelta(microseconds=1))
    first = store(conn, enqueued_at=midnight)
    assert listed(text(browser, f"{JOBS}?enqueued=today")) == [first]


def test_the_states_to_choose_from_are_those_that_jobs_can_have(browser: Client) -> None:
    page = text(browser, JOBS)
    assert "?state=scheduled" in page
    assert "?state=blocked" not in page


@pytest.mark.parametrize("name", ["state", "queue", "task", "tag", "enqueued"])
def test_a_value_that_no_row_can_have_finds_nothing(browser: Client, conn: psycopg.Connection[Any], name: str) -> None:
    store(conn, enqueued_at=datetime.now(UTC) - timedelta(days=2))
    assert listed(text(browser, f"{JOBS}?{name}=%00")) == []
    assert listed(text(browser, f"{JOBS}?{name}=a%00b")) == []


def test_a_module_that_cannot_be_imported_does_not_hide_the_jobs(
    browser: Client,
    conn: psycopg.Connection[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "raises_at_import.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    job = store(conn, task="gone.now")
    with override_settings(QWORKER={"MODULES": ["raises_at_import"]}):
        with pytest.raises(ZeroDivisionError):
            discovery.discover()
        assert listed(text(browser, JOBS)) == [job]
        assert task_backends["default"].get_result(str(job)).task.func.__qualname__ == "now"
    assert "a module with tasks cannot be imported" in caplog.text


def test_the_choices_of_filters_are_those_of_recent_jobs_of_nodes_and_of_this_code(
    browser: Client, conn: psycopg.Connection[Any]
) -> None:
    store(conn, queue="recent", task="seen.lately")
    conn.execute(
        "INSERT INTO qworker.node (name, version, queues, worker_count, lease_seconds) "
        "VALUES ('n', '1', '{served}', 1, 30)"
    )
    page = text(browser, JOBS)
    assert {"recent", "served"} <= set(re.findall(r"\?queue=(\w+)", page))
    assert {"seen.lately", "tests.contrib.django.shop.tasks.echo"} <= set(
        re.findall(r'<option value="([\w.]+)">', page)
    )
    assert "typed.in" in text(browser, f"{JOBS}?task=typed.in&state=failed")


def test_no_statement_reads_all_jobs_for_the_page(browser: Client, conn: psycopg.Connection[Any]) -> None:
    conn.execute("INSERT INTO qworker.job (task) SELECT 'x' FROM generate_series(1, 3000)")
    with CaptureQueriesContext(connection) as queries:
        text(browser, JOBS)
    on_jobs = [query["sql"] for query in queries if '"qworker"."jobs"' in query["sql"]]
    assert len(on_jobs) == 4
    assert all(re.search(r"LIMIT (101|1000|1001)\b", sql) for sql in on_jobs)
    assert not any("DISTINCT" in sql for sql in on_jobs)


def test_pages_follow_each_other_by_id(browser: Client, conn: psycopg.Connection[Any]) -> None:
    rows = conn.execute(
        "INSERT INTO qworker.job (task) SELECT 'x' FROM generate_series(1, 250) RETURNING id"
    ).fetchall()
    ids = sorted((row[0] for row in rows), reverse=True)
    url, pages, back = f"{JOBS}?state=available", [], []
    newer: list[str] = []
    while url:
        page = text(browser, url)
        assert "250 jobs" in page
        pages.append(listed(page))
        url = "".join(f"{JOBS}?{found}" for found in re.findall(r'href="\?([^"]*)">Older', page)).replace("&amp;", "&")
        newer = re.findall(r'href="\?([^"]*)">&lsaquo; Newer', page)
    assert pages == [ids[:100], ids[100:200], ids[200:]]
    while newer:
        page = text(browser, f"{JOBS}?{newer[0]}".replace("&amp;", "&"))
        back.append(listed(page))
        newer = re.findall(r'href="\?([^"]*)">&lsaquo; Newer', page)
    assert back == [ids[100:200], ids[:100]]


def test_a_filter_begins_with_the_first_page(browser: Client, conn: psycopg.Connection[Any]) -> None:
    store(conn, queue="mail")
    page = text(browser, f"{JOBS}?below=900&state=failed")
    assert "?queue=mail&amp;state=failed" in page
    assert "below=900" not in page


def test_jobs_are_counted_up_to_a_thousand(browser: Client, conn: psycopg.Connection[Any]) -> None:
    conn.execute("INSERT INTO qworker.job (task) SELECT 'x' FROM generate_series(1, 1500)")
    assert "more than 1000 jobs" in text(browser, JOBS)


def test_a_search_that_takes_too_long_is_ended(
    browser: Client, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(self: Any, limit: int) -> list[Any]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(30)")
        return []

    monkeypatch.setattr(changelist, "TIMEOUT", 0.05)
    monkeypatch.setattr(changelist.JobList, "_page", slow)
    response = browser.get(JOBS)
    assert response.status_code == 200
    assert "took longer than 0.05 seconds" in messages(response)[0]
    with connection.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("0",)


@pytest.mark.parametrize("term", ["mail", "12x", "-1", "٣", "'; --"])
def test_a_search_for_what_is_no_id_finds_nothing_and_says_so(
    browser: Client, conn: psycopg.Connection[Any], term: str
) -> None:
    store(conn)
    response = browser.get(JOBS, {"q": term})
    assert listed(response.content.decode()) == []
    assert "is not the id of a job" in messages(response)[0]


def test_a_job_is_found_by_its_id(browser: Client, conn: psycopg.Connection[Any]) -> None:
    wanted, _ = store(conn), store(conn)
    assert listed(text(browser, f"{JOBS}?q=+{wanted}+")) == [wanted]
    assert listed(text(browser, f"{JOBS}?q={10**30}")) == []


# One job


def test_a_job_is_shown_with_its_attempts_and_nothing_of_it_is_markup(
    browser: Client, conn: psycopg.Connection[Any]
) -> None:
    evil = "<script>alert(1)</script>"
    error = {
        "attempt": 1,
        "at": "2026-01-31T09:00:00+00:00",
        "type": evil,
        "message": evil,
        "traceback": f"in {evil}\nx",
    }
    job = store(
        conn, task=evil, queue=evil, tags=[evil], args=psycopg.types.json.Jsonb({evil: [evil]}),
        errors=psycopg.types.json.Jsonb([{"type": "KeyError"}, error]),
        progress=psycopg.types.json.Jsonb({"text": evil}), meta=psycopg.types.json.Jsonb({"cron": evil}),
    )  # fmt: skip
    page = text(browser, f"{JOBS}{job}/change/")
    assert evil not in page
    assert page.count("&lt;script&gt;") >= 8
    assert "2026-01-31 10:00:00 CET" in page
    assert page.index("&lt;script&gt;alert(1)&lt;/script&gt;</strong>") < page.index("<strong>KeyError</strong>")
    for url in (JOBS, f"{JOBS}?state=failed", f"{JOBS}retry/?job={job}"):
        assert evil not in text(browser, url)


def test_a_row_that_was_edited_by_hand_is_shown(browser: Client, conn: psycopg.Connection[Any]) -> None:
    job = store(
        conn, "completed", errors='{"a": 1}', result="[" * 300 + "]" * 300, enqueued_at="infinity",
        claimed_at="-infinity", args='{"n": ' + "9" * 5000 + "}",
    )  # fmt: skip
    assert listed(text(browser, JOBS)) == [job]
    assert "nested more than" in text(browser, f"{JOBS}{job}/change/")


def test_a_large_value_is_cut(browser: Client, conn: psycopg.Connection[Any]) -> None:
    job = store(conn, args='{"x": "' + "y" * 30_000 + '"}')
    page = text(browser, f"{JOBS}{job}/change/")
    assert "more characters" in page
    assert page.count("y" * 100) < 250


@pytest.mark.parametrize("name", ["0", "999999", "abc", str(10**30), "1_0"])
def test_a_job_that_does_not_exist_leads_back(browser: Client, name: str) -> None:
    response = browser.get(f"{JOBS}{name}/change/")
    assert response.status_code == 302
    assert response.url == "/admin/"


def test_of_two_jobs_with_one_id_the_unfinished_one_is_shown(browser: Client, conn: psycopg.Connection[Any]) -> None:
    job = store(conn)
    store(conn, "completed", id=job)
    assert ">failed</span>" in text(browser, f"{JOBS}{job}/change/")


def test_pages_change_nothing(browser: Client, conn: psycopg.Connection[Any]) -> None:
    job = store(conn)
    assert browser.get(f"{JOBS}add/").status_code == 403
    assert browser.post(f"{JOBS}{job}/change/", {"task": "x"}).status_code == 403
    assert browser.post(f"{JOBS}{job}/delete/", {"post": "yes"}).status_code == 403
    assert "delete_selected" not in text(browser, JOBS)
    assert Job.objects.get().task == "shop.work"


# Actions


def act(browser: Client, action: str, ids: list[int], *, query: str = "", **data: Any) -> Any:
    """Choose an action in the list, and confirm it."""
    page = browser.post(f"{JOBS}{query}", {"action": action, "_selected_action": ids, **data}, follow=True)
    form = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page.content.decode()))
    if "ids" not in form:
        return page
    form["filters"] = form["filters"].replace("&amp;", "&")
    return browser.post(f"{JOBS}{action}/", form, follow=True)


@pytest.mark.parametrize(
    ("action", "before", "after", "done"),
    [
        ("retry", "failed", "available", "Retried"), ("discard", "failed", "discarded", "Discarded"),
        ("cancel", "available", "cancelled", "Cancelled"), ("cancel", "scheduled", "cancelled", "Cancelled"),
        ("cancel", "running", "running", "Cancelled"),
    ],
)  # fmt: skip
def test_an_action_asks_acts_and_is_logged(
    browser: Client, conn: psycopg.Connection[Any], action: str, before: str, after: str, done: str
) -> None:
    wanted, left = store(conn, before), store(conn, before)
    asked = browser.post(JOBS, {"action": action, "_selected_action": [wanted]})
    assert f"{action.capitalize()} 1 job?" in asked.content.decode()
    (crumbs,) = re.findall(r'<(\w+) class="breadcrumbs">', text(browser, JOBS))
    assert f'<{crumbs} class="breadcrumbs">' in asked.content.decode()
    assert state_of(wanted) == before
    assert not LogEntry.objects.filter(object_id=str(wanted)).exists()

    response = act(browser, action, [wanted], query="?state=" + before)
    assert messages(response) == [f"{done} 1 job."]
    assert response.request["QUERY_STRING"] == f"state={before}"
    assert (state_of(wanted), state_of(left)) == (after, before)
    entry = LogEntry.objects.get(object_id=str(wanted))
    said = "Cancellation requested." if before == "running" else f"{done}."
    assert (entry.user.username, entry.object_repr, entry.change_message) == ("ada", f"{wanted} shop.work", said)
    assert said in text(browser, f"{JOBS}{wanted}/history/")
    assert f">{wanted} shop.work<" in text(browser, "/admin/")
    recorded = conn.execute("SELECT actor, via, address, action, target FROM qworker.audit").fetchall()
    assert recorded == [("ada", "django", "127.0.0.1", f"job.{action}", {"jobs": [wanted]})]
    if before == "running":
        assert Job.objects.get(pk=wanted).cancel_requested_at is not None


def test_jobs_in_another_state_are_left_out(browser: Client, conn: psycopg.Connection[Any]) -> None:
    failed, done = store(conn), store(conn, "completed")
    asked = browser.post(JOBS, {"action": "retry", "_selected_action": [failed, done]}).content.decode()
    assert "One of the selected jobs is left out: it had not failed." in asked
    response = act(browser, "retry", [done])
    assert messages(response) == ["None of the selected jobs can be changed: all had not failed."]


def test_a_job_that_changes_before_the_answer_is_counted(browser: Client, conn: psycopg.Connection[Any]) -> None:
    first, second = store(conn), store(conn)
    conn.execute("UPDATE qworker.job SET state = 'available' WHERE id = %s", [second])
    response = browser.post(f"{JOBS}retry/", {"ids": f"{first},{second},x,{10**30}"}, follow=True)
    assert messages(response) == ["Retried 1 job.", "1 job had not failed meanwhile."]
    assert LogEntry.objects.count() == 1


def test_all_jobs_of_a_filter_are_selected_up_to_a_thousand(browser: Client, conn: psycopg.Connection[Any]) -> None:
    conn.execute("INSERT INTO qworker.job (task, queue) SELECT 'x', 'mail' FROM generate_series(1, 1200)")
    other = store(conn, "available")
    first = Job.objects.filter(queue="mail").first()
    assert first is not None
    response = act(browser, "cancel", [first.id], query="?queue=mail", select_across=1)
    assert messages(response) == ["Cancelled 1,000 jobs."]
    assert Job.objects.filter(queue="mail", state="available").count() == 200
    assert first.id in Job.objects.filter(state="cancelled").values_list("id", flat=True)
    assert state_of(other) == "available"
    assert LogEntry.objects.count() == 1000


def test_the_page_of_a_job_offers_what_its_state_allows_and_one_returns_to_it(
    browser: Client, conn: psycopg.Connection[Any]
) -> None:
    def offered(job: int) -> set[str]:
        return set(re.findall(rf"/job/(\w+)/\?job={job}\b", text(browser, f"{JOBS}{job}/change/")))

    failed, waiting, done = store(conn), store(conn, "available"), store(conn, "completed")
    assert (offered(failed), offered(waiting), offered(done)) == ({"retry", "discard"}, {"cancel"}, set())
    asked = text(browser, f"{JOBS}retry/?job={failed}")
    assert f'<a href="{JOBS}{failed}/change/" class="button cancel-link' in asked
    response = browser.post(f"{JOBS}retry/", {"ids": str(failed), "job": str(failed)}, follow=True)
    assert response.request["PATH_INFO"] == f"{JOBS}{failed}/change/"
    assert state_of(failed) == "available"


def test_a_site_of_the_project_has_pages_of_its_own(browser: Client, conn: psycopg.Connection[Any]) -> None:
    job = store(conn)
    assert listed(text(browser, "/ops/qworker/job/")) == [job]
    assert f"/ops/qworker/job/retry/?job={job}" in text(browser, f"/ops/qworker/job/{job}/change/")
    asked = text(browser, f"/ops/qworker/job/retry/?job={job}")
    assert 'action="/ops/qworker/job/retry/"' in asked
    assert "/admin/qworker" not in asked
    response = browser.post("/ops/qworker/job/retry/", {"ids": str(job)})
    assert (response.url, state_of(job)) == ("/ops/qworker/job/", "available")


def test_a_get_request_changes_nothing(browser: Client, conn: psycopg.Connection[Any]) -> None:
    job = store(conn)
    for action in ("retry", "discard"):
        text(browser, f"{JOBS}{action}/?job={job}&ids={job}")
    assert state_of(job) == "failed"


def test_a_request_without_a_csrf_token_is_refused(browser: Client, conn: psycopg.Connection[Any]) -> None:
    job = store(conn)
    browser.handler.enforce_csrf_checks = True
    assert browser.post(f"{JOBS}retry/", {"ids": str(job)}).status_code == 403
    assert state_of(job) == "failed"


def test_the_log_and_the_change_are_one_transaction(
    browser: Client, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = store(conn)
    monkeypatch.setattr(LogEntry.objects, "bulk_create", lambda _entries: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        browser.post(f"{JOBS}retry/", {"ids": str(job)})
    assert state_of(job) == "failed"


# Permissions


@pytest.mark.parametrize("granted", [(), ("retry_job",), ("cancel_job",), ("discard_job",), ("change_job",)])
def test_each_action_needs_its_permission_or_that_to_change(
    as_user: Callable[..., Client], conn: psycopg.Connection[Any], granted: tuple[str, ...]
) -> None:
    failed, waiting = store(conn), store(conn, "available")
    browser = as_user("view_job", *granted)
    allowed = {
        action for action in ("retry", "cancel", "discard") if {f"{action}_job", "change_job"} & set(granted)
    }  # fmt: skip
    page = text(browser, JOBS)
    assert set(re.findall(r'<option value="(retry|cancel|discard)">', page)) == allowed
    shown = text(browser, f"{JOBS}{failed}/change/") + text(browser, f"{JOBS}{waiting}/change/")
    assert set(re.findall(r"/job/(\w+)/\?job=", shown)) == allowed
    for action in ("retry", "cancel", "discard"):
        job = waiting if action == "cancel" else failed
        if action not in allowed:
            assert browser.get(f"{JOBS}{action}/?job={job}").status_code == 403
            assert browser.post(f"{JOBS}{action}/", {"ids": str(job)}).status_code == 403
            browser.post(JOBS, {"action": action, "_selected_action": [job]})
    if not granted:
        assert (state_of(failed), state_of(waiting)) == ("failed", "available")
    else:
        action = min(allowed)
        assert browser.post(f"{JOBS}{action}/", {"ids": f"{failed},{waiting}"}).status_code == 302
        assert (state_of(failed), state_of(waiting)) != ("failed", "available")


def test_without_the_permission_to_view_nothing_is_shown_or_done(
    as_user: Callable[..., Client], conn: psycopg.Connection[Any]
) -> None:
    job = store(conn)
    browser = as_user("retry_job")
    for url in (JOBS, f"{JOBS}{job}/change/", f"{JOBS}retry/?job={job}"):
        text(browser, url, 403)
    assert browser.post(f"{JOBS}retry/", {"ids": str(job)}).status_code == 403
    assert state_of(job) == "failed"


def test_who_is_not_logged_in_is_sent_to_the_login(conn: psycopg.Connection[Any]) -> None:
    job = store(conn)
    response = Client().post(f"{JOBS}retry/", {"ids": str(job)})
    assert response.status_code == 302
    assert response.url.startswith("/admin/login/")
    assert state_of(job) == "failed"


# Schedules and nodes


def test_schedules_and_nodes_are_shown(browser: Client, conn: psycopg.Connection[Any]) -> None:
    conn.execute(
        "INSERT INTO qworker.cron (name, task, expression, timezone, last_tick, declared_by) VALUES "
        "('nightly', 'shop.report', '0 3 * * *', 'UTC', '2026-01-31 03:00+00', 1), "
        "('gone', 'shop.gone', '0 4 * * *', 'UTC', NULL, 1)"
    )
    conn.execute(
        "INSERT INTO qworker.node (name, version, queues, worker_count, lease_seconds, state) VALUES "
        "('web-1', '0.1', '{a,b}', 4, 30, '{\"cron\": {\"nightly\": 1}, \"note\": \"<i>\"}')"
    )
    with CaptureQueriesContext(connection) as queries:
        page = text(browser, "/admin/qworker/schedule/")
    assert sum('"qworker"."node"' in query["sql"] for query in queries) == 1
    assert page.index("none: it does not tick") < page.index("2026-01-31 04:00:00 CET") < page.index("web-1")
    assert "web-1" in text(browser, "/admin/qworker/schedule/nightly/change/")
    assert "a, b" in text(browser, "/admin/qworker/node/")
    (node_id,) = conn.execute("SELECT id FROM qworker.node").fetchone() or (0,)
    assert "&lt;i&gt;" in text(browser, f"/admin/qworker/node/{node_id}/change/")
    for name in ("schedule", "node"):
        assert browser.get(f"/admin/qworker/{name}/add/").status_code == 403
