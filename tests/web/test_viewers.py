"""What many viewers of a page cost the database, compared with one: each refreshes the page as its script does."""

import re
import threading
from random import Random
from time import monotonic
from typing import Any

import psycopg
import pytest
from flask import Flask

from qworkerd.web import application
from qworkerd.web.acted import COOKIE
from qworkerd.web.shared import Shared
from tests.database import Database
from tests.waiting import until
from tests.web import realistic
from tests.web.conftest import Clock
from tests.web.planted import failed
from tests.web.screenshots import pages
from tests.web.test_every_page import NAMES, SINGLE

#: Viewers; they look for so many periods of the slowest region, and at least so long (seconds). Each period is a part
#: of SECONDS, so that both one viewer and many see whole slots.
VIEWERS, ROUNDS, SECONDS = 5, 4, 30.0
#: The first viewer opens the page after half of this time, the others within it (seconds). The time between two
#: refreshes varies by JITTER.
OPENING, JITTER = 2.0, 0.1
#: Addresses of pages with other periods than those of the navigation: what ends, what goes on, what takes long.
FURTHER = {
    "a running job": "/jobs/901", "an ended job": "/jobs/2001", "an unindexed list": "/jobs?q=args.order_id:7",
    "a list that looks far": "/jobs?q=args.order_id:7&far=1", "running jobs": "/jobs?q=state:running",
    "an operation": "/operations/{}",
}  # fmt: skip
REGION = re.compile(r'data-every="([\d.]+)" data-hx-get="([^"]+)"')


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What this process executes, in whatever thread."""
    found: list[Any] = []
    execute = psycopg.Cursor.execute

    def noted(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        found.append(query)
        return execute(cursor, query, *args, **kwargs)

    monkeypatch.setattr(psycopg.Cursor, "execute", noted)
    return found


def examined() -> None:
    """Wait for the examination that a page has begun."""
    until(lambda: not any("_make_and_release" in one.name for one in threading.enumerate()), 60, "it has not ended")


class Viewer:
    """A browser that shows a page: each region asks for itself when its time has come, with the ETag that it has."""

    def __init__(self, app: Flask, address: str, opens: float, random: Random) -> None:
        self._client, self._address, self._random = app.test_client(), address, random
        #: When it asks next for what; every: the periods of the regions.
        self.due: dict[str, float] = {address: opens}
        self._every: dict[str, float] = {}
        self._tags: dict[str, str] = {}

    @property
    def next(self) -> float:
        return min(self.due.values(), default=float("inf"))

    def ask(self, now: float) -> None:
        for address in [address for address, at in self.due.items() if at <= now]:
            headers = {"If-None-Match": self._tags[address]} if address in self._tags else {}
            answer = self._client.get(address, headers=headers)
            assert answer.status_code in {200, 304}, answer.data
            if address == self._address:
                del self.due[address]
                for every, region in REGION.findall(answer.get_data(as_text=True)):
                    self._every[region.replace("&amp;", "&")] = float(every)
            self._tags |= {address: answer.headers["ETag"]} if "ETag" in answer.headers else {}
        for region, every in self._every.items():
            if self.due.get(region, now) <= now:
                self.due[region] = now + every + self._random.uniform(-JITTER, JITTER)


def watch(app: Flask, clock: Clock, address: str, seconds: float, viewers: int) -> None:
    """Have viewers look at a page until so much time has passed."""
    random, end = Random(7), clock.now + seconds
    opening = [OPENING / 2, *(random.uniform(0, OPENING) for _ in range(viewers - 1))]
    watching = [Viewer(app, address, clock.now + after, random) for after in opening]
    while (at := min(viewer.next for viewer in watching)) < end:
        clock.now = max(clock.now, at)
        for viewer in watching:
            viewer.ask(clock.now)
        examined()


#: Pages without a region are not refreshed; what is read for them is shared, see test_every_page.
REFRESHED = [name for name in SINGLE if name != "compare"]


@pytest.mark.parametrize("name", [*NAMES, *(f"one of {name}" for name in REFRESHED), *FURTHER])
def test_many_viewers_cost_about_as_much_as_one(
    make_dashboard: Any, database: Database, clock: Clock, statements: list[Any], name: str
) -> None:
    realistic.fill(database.dsn)
    failed(database, fingerprint=0x1093)
    (operation,) = database.connect().execute("SELECT max(id) FROM qworker.operation").fetchone() or (0,)
    costs = []
    for viewers in (1, VIEWERS):
        app: Flask = make_dashboard()
        single = FURTHER | {f"one of {one}": address for one, address in SINGLE.items()}
        address = (single.get(name) or pages(app)[name]).format(operation)
        # The connections and the first examination.
        opened = app.test_client().get(address)
        assert opened.status_code == 200
        examined()
        periods = [float(every) for every, _ in REGION.findall(opened.get_data(as_text=True))]
        app.extensions["qworker_shared"].invalidate()
        clock.now = 100 * SECONDS * viewers
        statements.clear()
        watch(app, clock, address, max(SECONDS, ROUNDS * max(periods)), viewers)
        costs.append(len(statements))
    one, many = costs
    assert one > 0
    assert many <= 1.2 * one, f"{VIEWERS} viewers: {many} statements, one: {one}"


def test_what_a_user_does_is_seen_by_the_user_in_every_process(
    make_dashboard: Any, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    realistic.fill(database.dsn)
    begin = monotonic()
    # The first slot begins now.
    monkeypatch.setattr(application, "Shared", lambda: Shared(lambda: monotonic() - begin))
    acting, other = make_dashboard().test_client(), make_dashboard().test_client(use_cookies=False)

    def paused(**headers: str) -> bool:
        queues = other.get("/queues.json", headers=headers).get_json()["queues"]
        return any(one["queue"] == "mail" and one["paused"] is not None for one in queues)

    assert not paused()
    done = acting.post("/queues/pause", data={"name": "mail"}, headers={"Sec-Fetch-Site": "same-origin"})
    assert done.status_code == 303
    cookie = next(one for one in done.headers.getlist("Set-Cookie") if one.startswith(COOKIE))
    assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
    assert paused(Cookie=cookie.partition(";")[0])
    # What was read for that user is what all get.
    assert paused()
    for odd in ("", "x", "-1", "9" * 400, "1e9", "\u0661"):
        assert other.get("/queues", headers={"Cookie": f"{COOKIE}={odd}"}).status_code == 200
