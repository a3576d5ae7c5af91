"""Searches end in bounded time, say how far they have looked, and continue from there."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import psycopg
import pytest

from qworker import scan, search
from qworker.db.pool import Pool
from qworker.filters import parse
from qworker.scan import ABOVE, BELOW, Scan
from qworker.search import Order, Search
from qworkerd.embedded import EmbeddedPostgres
from tests.database import Database
from tests.qworker.plans import FILL, VACUUM, Session
from tests.qworker.test_plans import created

#: 100 unfinished jobs with even ids and 100 ended ones with odd ids; every tenth has the tag.
MIXED = """
INSERT INTO qworker.job (id, task, enqueued_at, tags, state, failed_at, attempt)
SELECT 2 * n, 'unfinished', '2026-01-01Z'::timestamptz + n * interval '1 d',
       CASE WHEN n % 10 = 0 THEN '{x}'::text[] END,
       CASE WHEN n % 10 = 5 THEN 'failed'::qworker.job_state ELSE 'available' END,
       CASE WHEN n % 10 = 5 THEN now() END, 0
  FROM generate_series(1, 100) AS n;
INSERT INTO qworker.job_history (id, task, enqueued_at, finished_at, state, attempt, ring_day, priority, crashes,
                                 node_losses, is_hook, queue, args, tags, duration)
SELECT 2 * n + 1, 'ended', '2026-01-01Z'::timestamptz + n * interval '1 d', now(), 'completed', 1, n % 32, 5, 0,
       0, false, 'default', '{}', CASE WHEN n % 10 = 0 THEN '{x}'::text[] END, n
  FROM generate_series(1, 100) AS n;
"""


@pytest.fixture
def found(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Search]:
    """A search that looks at 20 ids at once, and at two such slices, in a database with 200 jobs."""
    database.connect().execute(MIXED)
    monkeypatch.setattr(search, "SLICE", 20)
    monkeypatch.setattr(search, "MAX_SLICES", 2)
    monkeypatch.setattr(search, "QUICK", 0.0)
    for method in (Search.page, Search.count):  # the machine may be busy
        monkeypatch.setitem(method.__kwdefaults__ or {}, "time_limit", 60.0)
    with closing(Pool(database.dsn)) as pool, closing(Search(pool)) as made:
        yield made


def ids(made: Search, text: str, order: Order = Order.NEWEST, limit: int = 3) -> list[list[int]]:
    """Return the ids of all pages; those of a search that has reached its limit are a page as well."""
    pages, cursor = [], None
    while True:
        page = made.page(parse(text), order=order, cursor=cursor, limit=limit)
        pages.append([job.id for job in page.jobs])
        cursor = page.cursor
        if cursor is None:
            return pages


def flat(pages: list[list[int]]) -> list[int]:
    return [job for page in pages for job in page]


def test_pages_have_unfinished_and_ended_jobs_the_newest_first(found: Search) -> None:
    pages = ids(found, "")
    assert pages[:2] == [[201, 200, 199], [198, 197, 196]]
    assert flat(pages) == list(range(201, 1, -1))


def test_the_oldest_first_continues_upwards(found: Search) -> None:
    assert ids(found, "", Order.OLDEST)[:2] == [[2, 3, 4], [5, 6, 7]]
    assert flat(ids(found, "tag:x", Order.OLDEST)) == [n for ten in range(20, 201, 20) for n in (ten, ten + 1)]


def test_a_search_at_its_limit_says_how_far_it_has_looked_and_goes_on_from_there(found: Search) -> None:
    page = found.page(parse("task:unfinished -state:available,failed"))
    assert (page.jobs, page.cursor) == ((), 162)
    assert page.looked_back_to == datetime(2026, 3, 23, tzinfo=UTC)  # that of job 162 with number 81
    assert flat(ids(found, "tag:x")) == [n for ten in range(200, 19, -20) for n in (ten + 1, ten)]
    assert len(ids(found, "tag:none")) == 5  # of 40 ids each


def test_gaps_between_ids_take_no_slices(found: Search, database: Database) -> None:
    database.connect().execute("UPDATE qworker.job_history SET id = id + 1000000000000 WHERE id % 4 = 1")
    assert len(ids(found, "tag:none")) <= 12


def test_what_an_index_serves_is_found_without_looking_at_other_jobs(found: Search) -> None:
    page = found.page(parse("state:failed"), limit=50)
    assert [job.id for job in page.jobs] == list(range(190, 9, -20))
    assert page.cursor is None
    assert found.page(parse("state:failed"), limit=2).cursor == 170
    assert flat(ids(found, "state:failed", Order.OLDEST)) == list(range(10, 191, 20))
    assert flat(ids(found, "id:200,3,7")) == [200, 7, 3]


def test_if_an_index_has_many_entries_jobs_are_read_in_order_instead(
    found: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "FEW", 9)
    assert flat(ids(found, "state:failed,running")) == list(range(190, 9, -20))
    assert found.page(parse("state:failed,running"), limit=50).looked_back_to is not None


def test_many_failed_jobs_are_read_by_their_index_whatever_is_newer(
    found: Search, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slices of ids would end before they reach a failed job."""
    monkeypatch.setattr(scan, "FEW", 3)
    monkeypatch.setattr(scan, "CHUNK", 4)
    database.connect().execute("INSERT INTO qworker.job (id, task) SELECT n, 'new' FROM generate_series(300, 500) AS n")
    expected = [2 * n for n in range(95, 0, -10)]
    assert found.page(parse("state:failed"), limit=3).jobs[0].id == expected[0]
    assert flat(ids(found, "state:failed")) == expected
    assert flat(ids(found, "state:failed", Order.OLDEST)) == expected[::-1]
    page = found.page(parse("state:failed task:absent"))
    assert page.cursor == expected[7], "a search that finds nothing has its limit nevertheless: two times four jobs"
    assert page.looked_back_to is not None
    counted = [found.count(parse("state:failed"), limit=5), found.count(parse("state:failed"))]
    assert [(count.jobs, count.exact) for count in counted] == [(5, False), (8, False)]


def test_an_index_that_takes_too_long_is_not_used(found: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "FEW_TIMEOUT", 0.05)
    monkeypatch.setattr(Scan, "read_indexes", lambda self: self._conn.execute("SELECT pg_sleep(10)"))
    page = found.page(parse("state:failed"), limit=50)
    assert [job.id for job in page.jobs] == [190, 170]
    assert page.looked_back_to is not None


def test_the_slowest_are_those_among_the_jobs_that_were_looked_at(found: Search) -> None:
    first = found.page(parse("task:ended"), order=Order.SLOWEST, limit=2)
    assert [job.id for job in first.jobs] == [201, 199]
    assert first.cursor == 162
    later = found.page(parse("task:ended"), order=Order.SLOWEST, limit=2, cursor=first.cursor)
    assert [job.id for job in later.jobs] == [161, 159]


@pytest.mark.parametrize(
    ("text", "shown"), [("", "40 or more"), ("state:failed", "10"), ("tag:x", "4 or more"), ("id:3", "1")]
)
def test_a_count_is_exact_or_says_that_it_is_not(found: Search, text: str, shown: str) -> None:
    counted = found.count(parse(text))
    assert str(counted) == shown
    assert counted.exact == (counted.looked_back_to is None)


def test_a_count_has_an_end(found: Search) -> None:
    assert str(found.count(parse(""), limit=7)) == "7 or more"
    assert str(found.count(parse("state:failed"), limit=7)) == "7 or more"
    assert str(found.count(parse("state:failed"), below=100)) == "5"


def test_a_search_can_neither_write_nor_run_for_long(found: Search) -> None:
    with found._reading(parse("")) as reading:
        conn = reading._conn
        assert conn.execute("SELECT current_setting('statement_timeout')").fetchone() == ("2s",)
        assert conn.execute("SELECT current_setting('lock_timeout')").fetchone() == ("200ms",)
        assert conn.execute("SELECT current_setting('jit')").fetchone() == ("off",)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), conn.transaction():
            conn.execute("DELETE FROM qworker.job")


@pytest.fixture(scope="module")
def filled(postgres_server: EmbeddedPostgres) -> Iterator[Session]:
    with created(postgres_server) as database, Session(database) as session:
        conn = database.connect()
        conn.execute(FILL)
        conn.execute(VACUUM)
        yield session


@pytest.fixture(scope="module")
def without_statistics(postgres_server: EmbeddedPostgres) -> Iterator[Session]:
    with created(postgres_server) as database, Session(database) as session:
        database.connect().execute(FILL)
        yield session


@pytest.mark.parametrize("situation", ["filled", "without_statistics"])
@pytest.mark.parametrize(("text", "statement", "rows", "order"), [
    ("", "ids", 120, True), ("queue:default", "ids", 220, True), ("task:nope", "ids", 110_000, True),
    ("tag:nope -message:x", "count", 110_000, False), ("args.x:1", "oldest", 110_000, False),
    ("state:completed", "ids", 25_000, True), ("id:17,18", "newest", 20, False), ("run:>1s", "slowest", 110_000, False),
])  # fmt: skip
def test_a_slice_is_read_in_the_order_of_ids_and_only_as_far_as_needed(
    text: str, statement: str, rows: int, order: bool, situation: str, request: pytest.FixtureRequest
) -> None:
    session: Session = request.getfixturevalue(situation)
    low, high = (BELOW, ABOVE) if text.startswith(("id", "state")) else (24_000, 124_001)
    plan, _ = session.watch(
        lambda c: len(Scan(c, "qworker", parse(text)).rows(statement, low=low, high=high, limit=100))
    )
    assert not plan.sequential
    assert {name for name in plan.indexes if not name.startswith("job_history")} <= {"job_pkey", "node_pkey"}
    assert plan.rows <= rows
    if order:
        assert not any(node["Node Type"] == "Sort" for node in plan.nodes)


@pytest.mark.parametrize("situation", ["filled", "without_statistics"])
@pytest.mark.parametrize(("text", "found", "index"), [
    ("state:failed", 1_000, "job_failed"), ("state:running", 3_000, "job_running"),
    ("state:retrying", 0, "job_retrying"),
    ("state:available queue:idle", 0, "job_ready"), ("state:failed,running", 4_000, "job_failed"),
])  # fmt: skip
def test_a_small_index_is_read_as_a_whole(
    text: str, found: int, index: str, situation: str, request: pytest.FixtureRequest
) -> None:
    session: Session = request.getfixturevalue(situation)

    def read(conn: psycopg.Connection[tuple[object, ...]]) -> int:
        scanned = Scan(conn, "qworker", parse(text))
        scanned.read_indexes()
        assert scanned.only is not None
        return len(scanned.only)

    plan, number = session.watch(read)
    assert number == found
    assert index in plan.indexes
    assert not plan.sequential
    assert plan.rows <= 2 * found + 10
