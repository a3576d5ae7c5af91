"""Lists as CSV: all pages of them, in slices, up to a limit that is said."""

import csv
import io
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient

from qworker.search import Search
from qworkerd.web import Access, exports
from qworkerd.web.access import VIEW
from tests.database import Database
from tests.web.planted import failed


@pytest.fixture
def many(database: Database) -> int:
    """More jobs than a page has, one of which a spreadsheet would evaluate."""
    with database.connect() as conn:
        conn.execute(
            "INSERT INTO qworker.job (queue, task, tags)"
            " SELECT 'mail', '=1+1', ARRAY['=cmd'] FROM generate_series(1, 450)"
        )
    return 450


def rows(client: FlaskClient, path: str) -> list[list[str]]:
    answer = client.get(path)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    assert answer.mimetype == "text/csv"
    return list(csv.reader(io.StringIO(answer.get_data(as_text=True))))


def test_all_pages_are_in_it_and_no_cell_is_a_formula(client: FlaskClient, many: int) -> None:
    head, *found = rows(client, "/jobs.csv?q=queue:mail&size=20")
    ids = [int(row[head.index("id")]) for row in found]
    assert len(set(ids)) == many
    assert ids == sorted(ids, reverse=True)
    assert {row[head.index("task")] for row in found} == {"'=1+1"}
    assert not [cell for row in found for cell in row if cell.startswith("=")]
    assert len(rows(client, f"/jobs.csv?below={ids[-1]}")) == 1


def test_what_is_cut_says_so(client: FlaskClient, many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "MAX_ROWS", 250)
    _, *found, last = rows(client, "/jobs.csv")
    assert len(found) == 250
    assert last[0] == "cut: 250 rows is the most that an export has; there are more rows"
    monkeypatch.setattr(exports, "MAX_ROWS", many)
    assert len(rows(client, "/jobs.csv")) == many + 1
    monkeypatch.setattr(exports, "MAX_SECONDS", -1)
    assert "took longer" in rows(client, "/jobs.csv")[-1][0]


def test_it_is_read_in_slices_and_says_if_the_database_is_lost(
    client: FlaskClient, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, page = list[int](), Search.page

    def read(self: Search, *args: Any, **options: Any) -> Any:
        sizes.append(options["limit"])
        if len(sizes) == 3:
            raise psycopg.OperationalError("the server is gone")
        return page(self, *args, **options)

    monkeypatch.setattr(Search, "page", read)
    found = rows(client, "/jobs.csv")
    assert sizes == [200, 200, 200]
    assert found[-1][0] == "cut: the database did not answer; there are more rows"
    assert len(found) == 402


def test_errors_before_the_first_row_have_a_status(client: FlaskClient, make_dashboard: Callable[..., Flask]) -> None:
    assert client.get("/audit.csv?job=x").status_code == 400
    hidden = make_dashboard(access=lambda _environ: Access("ben", frozenset())).test_client()
    assert hidden.get("/jobs.csv").status_code == 403


def test_a_user_without_the_right_exports_no_errors(make_dashboard: Callable[..., Flask], database: Database) -> None:
    for _ in range(3):
        failed(database, "secret 42")
    client = make_dashboard(access=lambda _environ: Access("ben", frozenset({VIEW}))).test_client()
    assert "secret" not in client.get("/jobs.csv").get_data(as_text=True)


def test_only_some_are_written_at_the_same_time(client: FlaskClient, many: int) -> None:
    for _ in range(3):
        assert len(rows(client, "/jobs.csv")) == many + 1
    for _ in range(exports.MAX_EXPORTS):
        assert exports._exports.acquire(blocking=False)
    try:
        assert client.get("/jobs.csv").status_code == 503
    finally:
        for _ in range(exports.MAX_EXPORTS):
            exports._exports.release()
    assert len(rows(client, "/jobs.csv")) == many + 1
