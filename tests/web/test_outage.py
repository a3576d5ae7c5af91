"""Pages while the database is away: they say so, keep what they show, and come back by themselves."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from flask.testing import FlaskClient
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from qworker.migrations import migrate
from qworkerd.embedded import EmbeddedPostgres
from qworkerd.web import create_app, everybody
from tests.database import Database
from tests.web import realistic
from tests.web.browser import serving
from tests.web.conftest import SAME_ORIGIN
from tests.web.planted import failed

TERMINATE = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s"


@pytest.fixture
def client(empty_database: Database) -> Iterator[FlaskClient]:
    with psycopg.connect(empty_database.dsn) as conn:
        migrate(conn)
    realistic.fill(empty_database.dsn)
    app = create_app(empty_database.dsn, access=everybody())
    yield app.test_client()
    app.extensions["qworker_source"].close()


@pytest.fixture
def reachable(postgres_server: EmbeddedPostgres, empty_database: Database) -> Callable[[bool], None]:
    """Let the database accept connections, or none."""
    name = str(conninfo_to_dict(empty_database.dsn)["dbname"])

    def reachable(allowed: bool) -> None:
        with psycopg.connect(postgres_server.dsn, autocommit=True) as conn:
            statement = sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS {}")
            conn.execute(statement.format(sql.Identifier(name), sql.Literal(allowed)))
            if not allowed:
                conn.execute(TERMINATE, [name])

    return reachable


def test_an_answer_says_what_is_wrong_and_when_to_ask_again(
    client: FlaskClient, reachable: Callable[[bool], None]
) -> None:  # fmt: skip
    reachable(False)
    answer = client.get("/overview.json")
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "not currently accepting connections" in json.loads(answer.data)["error"]
    page = client.get("/")
    assert page.status_code == 503
    assert "The database does not answer" in page.get_data(as_text=True)
    reachable(True)


def test_a_page_stays_and_comes_back(client: FlaskClient, reachable: Callable[[bool], None], browser: Any) -> None:
    with serving(client.application) as url:
        context = browser.new_context(base_url=url)
        context.set_default_timeout(20_000)
        page = context.new_page()
        page.goto("/")
        reachable(False)
        page.keyboard.press("r")
        page.get_by_text("The database does not answer. This page is as of").wait_for()
        assert page.get_by_role("row", name="checkout").is_visible()
        reachable(True)
        page.get_by_text("The database does not answer.").wait_for(state="hidden")
        context.close()


def test_a_statement_that_takes_too_long_is_stopped(client: FlaskClient, empty_database: Database) -> None:
    conn = empty_database.connect(autocommit=False)
    conn.execute("LOCK TABLE qworker.stat, qworker.depth IN ACCESS EXCLUSIVE MODE")
    answer = client.get("/overview.json")
    assert answer.status_code in {503, 504}
    conn.rollback()
    empty_database.close()


def test_pages_cannot_write(client: FlaskClient) -> None:
    source = client.application.extensions["qworker_source"]
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), source.readers.connection() as conn:
        conn.execute("DELETE FROM qworker.job")
    with source.readers.connection() as conn:
        assert conn.execute("SHOW statement_timeout").fetchone() == ("2s",)
    assert client.post("/", headers=SAME_ORIGIN).status_code == 405


@pytest.mark.parametrize("path", ["/", "/queues", "/tasks"])
def test_a_schema_that_is_older_is_named_with_its_remedy(
    client: FlaskClient, empty_database: Database, path: str
) -> None:
    with psycopg.connect(empty_database.dsn) as conn:
        conn.execute("ALTER TABLE qworker.stat DROP COLUMN run_histogram")
    answer = client.get(path, headers={"Accept": "application/json"} | SAME_ORIGIN)
    assert answer.status_code == 500
    assert answer.get_json()["error"].endswith("does not exist): run `qworker db migrate`")


def test_a_lock_and_a_database_that_accepts_no_changes_are_named(client: FlaskClient, empty_database: Database) -> None:
    number, headers = failed(empty_database), SAME_ORIGIN | {"Accept": "application/json"}
    holder = empty_database.connect(autocommit=False)
    holder.execute("LOCK TABLE qworker.job IN ACCESS EXCLUSIVE MODE")
    locked = client.post(f"/jobs/{number}/retry", headers=headers)
    holder.rollback()
    name = sql.Identifier(holder.info.dbname)
    holder.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
    holder.commit()
    standby = create_app(empty_database.dsn, access=everybody())
    there = standby.test_client()
    paths = (f"/jobs/{number}/retry", "/queues/pause")
    answers = [there.post(path, data={"name": "a"}, headers=headers) for path in paths]
    assert there.get("/jobs").status_code == 200
    for answer, word in ((locked, "lock"), *((answer, "read-only") for answer in answers)):
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5"), answer.text
        assert word in json.loads(answer.data)["error"]
        assert "SELECT" not in answer.text
    standby.extensions["qworker_source"].close()
    empty_database.close()
