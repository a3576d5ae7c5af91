"""Viewers with different rights share answers: what jobs hold is shown only to those who may see it."""

import re
from collections.abc import Callable

import pytest
from flask import Flask

from qworkerd.web import ALL, READ, Access
from qworkerd.web.access import PAYLOAD
from tests.database import Database
from tests.web import realistic
from tests.web.conftest import SAME_ORIGIN, Rows
from tests.web.screenshots import FURTHER, pages
from tests.web.shop import shop

SECRET = "a-secret-of-a-customer"
REGION = re.compile(r'data-hx-get="([^"]+)"')
FAILED = """
INSERT INTO qworker.job (task, queue, args, state, failed_at, attempt, fingerprint, errors)
SELECT 'shop.mail.welcome', 'checkout', jsonb_build_object('x', %(secret)s::text), 'failed', now(), 3, 171,
       jsonb_build_array(jsonb_build_object(
           'type', 'E', 'message', %(secret)s::text, 'traceback', %(secret)s::text, 'fingerprint', '00000000000000ab',
           'logs', jsonb_build_array(jsonb_build_object('event', %(secret)s::text, 'level', 'info'))))
RETURNING id
"""
GROUP = """
INSERT INTO qworker.error_group (fingerprint, count, first_seen, last_seen, first_job, task, type, message, queues,
                                 samples)
VALUES (171, 1, now(), now(), %(job)s, 'shop.mail.welcome', 'E', %(secret)s, '{checkout}', ARRAY[%(job)s::bigint])
"""


@pytest.mark.parametrize("first", ["may see it", "may not"])
def test_what_one_viewer_may_see_is_not_shared_with_another(
    make_dashboard: Callable[..., Flask], database: Database, first: str
) -> None:
    realistic.fill(database.dsn)
    conn = database.connect()
    ((job,),) = conn.execute(FAILED, {"secret": SECRET}).fetchall()
    conn.execute(GROUP, {"secret": SECRET, "job": job})
    accesses = {"may see it": Access("anna", ALL), "may not": Access("bert", READ - {PAYLOAD})}
    dashboard = make_dashboard(access=lambda environ: accesses[environ["HTTP_X_USER"]])
    client = dashboard.test_client(use_cookies=False)

    def text(address: str, user: str) -> str:
        answer = client.get(address, headers={"X-User": user})
        body = answer.get_data(as_text=True)
        assert answer.status_code == (404 if address == FURTHER["missing"] else 200), f"{address}, {user}:\n{body}"
        return body

    single = {f"/jobs/{job}", f"/jobs/{job}.json", "/errors/00000000000000ab"}
    lists = {f"{path}.{kind}" for path in ("/jobs", "/errors", "/operations", "/audit") for kind in ("json", "csv")}
    addresses = {*pages(dashboard).values(), *single, *lists, "/jobs?q=state:failed"}
    regions = {found.replace("&amp;", "&") for one in addresses for found in REGION.findall(text(one, first))}
    users = [first, *(user for user in accesses if user != first)]
    seen = {user: {one for one in addresses | regions if SECRET in text(one, user)} for user in users}
    assert seen["may not"] == set()
    assert seen["may see it"] >= {f"/jobs/{job}", f"/jobs/{job}.json", "/errors/00000000000000ab", "/errors.json"}
    assert len(seen["may see it"]) > 8


OPERATED = "UPDATE qworker.operation SET state = 'failed', error = %s, finished_at = now()"
PARTS = re.compile(r"<[^>]*:(\w+)>")


def test_no_action_tells_what_its_user_may_not_see(
    make_dashboard: Callable[..., Flask], database: Database, rows: Rows
) -> None:
    conn = database.connect()
    ((number,),) = conn.execute(FAILED, {"secret": SECRET}).fetchall()
    conn.execute(GROUP, {"secret": SECRET, "job": number})
    actions = frozenset({"view", "job", "queue", "schedule", "operation", "error"})
    application = shop(database.dsn)
    dashboard = make_dashboard(application, access=lambda _environ: Access("bert", actions))
    client = dashboard.test_client()
    values = {"number": str(number), "fingerprint": "00000000000000ab"}
    paths = {
        PARTS.sub(lambda part: values[part[1]], rule.rule)
        for rule in dashboard.url_map.iter_rules() if "POST" in (rule.methods or ())
    }  # fmt: skip
    assert len(paths) >= 30
    form = {"id": number, "name": "shop.mail.welcome", "q": "queue:checkout", "queue": "video", "arg.json": "{}"}
    for path in sorted(paths):
        for accepted in ("application/json", "text/html"):
            # The second one is answered from the audit.
            for _ in range(2):
                answer = client.post(
                    path, data=form, headers={**SAME_ORIGIN, "Accept": accepted, "Idempotency-Key": path + accepted}
                )
                assert answer.status_code < 500, answer.text
                assert SECRET not in answer.text + str(answer.headers), path
                rows(f"{OPERATED} RETURNING 1", f"key {SECRET} exists")
    assert rows("SELECT count(*) > 0 FROM qworker.operation") == [(True,)]
    application.close()
