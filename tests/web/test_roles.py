"""The dashboard as the roles that `qworker db grant` grants: pages as a viewer, actions as an admin."""

from collections.abc import Iterator

import pytest
from flask import Flask

from qworker import App
from qworkerd.embedded import EmbeddedPostgres
from qworkerd.web import create_app, everybody
from tests import roles
from tests.database import Database
from tests.web import realistic
from tests.web.conftest import SAME_ORIGIN
from tests.web.screenshots import pages
from tests.web.test_every_page import NAMES, SINGLE


@pytest.fixture(scope="module")
def guarded(postgres_server: EmbeddedPostgres) -> Iterator[Database]:
    with roles.guarded_database(postgres_server) as database:
        realistic.fill(database.dsn)
        yield database


@pytest.fixture
def dashboard(guarded: Database) -> Iterator[Flask]:
    """A dashboard that reads as a viewer and acts as an admin."""
    target = App(roles.login(guarded.dsn, "admin"))
    app = create_app(target, access=everybody("anna"), read_dsn=roles.login(guarded.dsn, "viewer"))
    yield app
    app.extensions["qworker_source"].close()
    target.close()


def test_a_viewer_sees_every_page(dashboard: Flask) -> None:
    client = dashboard.test_client()
    addresses = [address for name, address in pages(dashboard).items() if name in NAMES]
    found = {address: client.get(address).status_code for address in (*addresses, *SINGLE.values())}
    assert found == dict.fromkeys(found, 200)


def test_an_admin_acts_and_the_audit_has_the_user(dashboard: Flask, guarded: Database) -> None:
    answer = dashboard.test_client().post(
        "/queues/pause", data={"name": "mail", "reason": "smtp"},
        headers=SAME_ORIGIN | {"Accept": "application/json"},
    )  # fmt: skip
    assert answer.status_code == 200, answer.data
    row = guarded.connect().execute(
        "SELECT actor, role, via, address, note FROM qworker.audit ORDER BY id DESC LIMIT 1"
    ).fetchone()  # fmt: skip
    assert row == ("anna", "admin", "web", "127.0.0.1", "smtp")


def test_a_viewer_for_both_changes_nothing(guarded: Database) -> None:
    app = create_app(roles.login(guarded.dsn, "viewer"), access=everybody("anna"))
    answer = app.test_client().post(
        "/queues/pause", data={"name": "images"}, headers=SAME_ORIGIN | {"Accept": "application/json"}
    )
    assert answer.status_code >= 400
    assert guarded.connect().execute("SELECT paused_at FROM qworker.queue WHERE name = 'images'").fetchone() is None
    app.extensions["qworker_source"].close()
