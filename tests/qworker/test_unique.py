"""Jobs of which there may be only one."""

import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from qworker import App, JobState, Task
from tests.database import Database
from tests.qworker.conftest import FakeWorker, Query
from tests.waiting import until


@pytest.fixture
def sync(app: App) -> Task[..., None]:
    @app.task(name="sync")
    def sync(user_id: int = 0, full: bool = False) -> None: ...

    return sync


def test_a_duplicate_is_the_job_that_holds_the_key(sync: Task[..., None], query: Query) -> None:
    first = sync.options(unique="user-7").enqueue(7)
    second = sync.options(unique="user-7").enqueue(8)
    assert (first.duplicate, second.duplicate) == (False, True)
    assert (second.id, second.args) == (first.id, {"user_id": 7})
    assert query("SELECT count(*) FROM qworker.job") == [(1,)]


def test_keys_belong_to_one_task(app: App, sync: Task[..., None]) -> None:
    other: Task[[], None] = app.task(name="other")(lambda: None)
    assert not sync.options(unique="k").enqueue(7).duplicate
    assert not other.options(unique="k").enqueue().duplicate


def test_the_arguments_can_be_the_key_in_any_order(sync: Task[..., None]) -> None:
    unique = sync.options(unique=True)
    assert not unique.enqueue(user_id=7, full=True).duplicate
    assert unique.enqueue(full=True, user_id=7).duplicate
    assert unique.enqueue(7, full=True).duplicate
    assert not unique.enqueue(8, full=True).duplicate


def test_a_task_may_be_unique_by_itself_and_one_job_not(app: App) -> None:
    @app.task(name="t", unique=True)
    def task() -> None: ...

    assert not task.enqueue().duplicate
    assert task.enqueue().duplicate
    assert not task.options(unique=False).enqueue().duplicate


def test_a_running_job_holds_its_key_and_the_end_frees_it(sync: Task[..., None], fake_worker: FakeWorker) -> None:
    unique = sync.options(unique="k")
    first = unique.enqueue(1)
    assert fake_worker.claim() == first.id
    assert unique.enqueue(1).duplicate
    fake_worker.complete(first.id)
    assert not unique.enqueue(1).duplicate


@pytest.mark.parametrize("end", ["fail", "cancel", "cancel by hand"])
def test_every_end_frees_the_key(sync: Task[..., None], fake_worker: FakeWorker, end: str) -> None:
    unique = sync.options(unique="k")
    first = unique.enqueue(1)
    if end == "cancel by hand":
        assert first.cancel()
    else:
        assert fake_worker.claim() == first.id
        getattr(fake_worker, end)(first.id)
    again = unique.enqueue(1)
    assert not again.duplicate
    assert unique.enqueue(1).id == again.id


def test_a_key_whose_job_was_deleted_by_hand_is_taken_over(sync: Task[..., None], query: Query) -> None:
    unique = sync.options(unique="k")
    unique.enqueue(1)
    query("DELETE FROM qworker.job RETURNING id")
    again = unique.enqueue(1)
    assert not again.duplicate
    assert query("SELECT job_id FROM qworker.unique_key") == [(again.id,)]


def test_a_period_outlasts_the_job_and_then_ends(sync: Task[..., None], fake_worker: FakeWorker, query: Query) -> None:
    hourly = sync.options(unique_for=3600)
    first = hourly.enqueue(1)
    assert fake_worker.claim() == first.id
    fake_worker.complete(first.id, result="done")
    duplicate = hourly.enqueue(1)
    assert (duplicate.id, duplicate.duplicate, duplicate.state) == (first.id, True, JobState.COMPLETED)
    assert duplicate.wait(1) == "done"
    query("UPDATE qworker.unique_key SET expires_at = expires_at - interval '1 hour' RETURNING 1")
    again = hourly.enqueue(1)
    assert not again.duplicate
    assert query("SELECT job_id, expires_at > clock_timestamp() FROM qworker.unique_key") == [(again.id, True)]


def test_a_period_may_outlast_the_history(sync: Task[..., None], query: Query) -> None:
    monthly = sync.options(unique="k", unique_for=30 * 86_400)
    first = monthly.enqueue(1)
    query("DELETE FROM qworker.job RETURNING id")
    duplicate = monthly.enqueue(1)
    assert (duplicate.id, duplicate.duplicate, duplicate.state) == (first.id, True, JobState.FORGOTTEN)


def test_only_keys_that_end_with_the_job_are_its_business(sync: Task[..., None], query: Query) -> None:
    sync.options(unique="k").enqueue(1)
    sync.options(unique="k2", unique_for=60).enqueue(1)
    sync.enqueue(1)
    assert query("SELECT holds_key FROM qworker.job ORDER BY id") == [(True,), (False,), (False,)]


def test_of_many_at_once_one_wins(app: App, sync: Task[..., None], query: Query) -> None:
    start = threading.Barrier(8)

    def enqueue(n: int) -> tuple[int, bool]:
        start.wait()
        found = sync.options(unique="k").enqueue(n)
        return found.id, found.duplicate

    for _ in range(10):
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(enqueue, range(8)))
        assert sum(not duplicate for _, duplicate in found) == 1
        assert len({id_ for id_, _ in found}) == 1
        query("DELETE FROM qworker.job RETURNING id")  # the next round takes an orphaned key over


def test_of_many_at_once_one_takes_over_what_has_run_out(sync: Task[..., None], query: Query) -> None:
    start = threading.Barrier(8)
    period = sync.options(unique_for=3600)
    period.enqueue(1)

    def enqueue(_: int) -> bool:
        start.wait()
        return period.enqueue(1).duplicate

    for _ in range(10):
        query("UPDATE qworker.unique_key SET expires_at = clock_timestamp() RETURNING 1")
        with ThreadPoolExecutor(8) as pool:
            assert sorted(pool.map(enqueue, range(8))) == [False] + [True] * 7


def test_an_open_transaction_that_found_a_duplicate_does_not_hold_up_the_jobs_end(
    sync: Task[..., None], fake_worker: FakeWorker, database: Database
) -> None:
    first = sync.options(unique="k").enqueue(1)
    assert fake_worker.claim() == first.id
    conn = database.connect(autocommit=False)
    assert sync.using(conn).options(unique="k").enqueue(1).duplicate
    other = database.connect(options="-c lock_timeout=2s")
    other.execute("DELETE FROM qworker.unique_key WHERE job_id = %s", [first.id])
    fake_worker.complete(first.id)


def test_within_one_transaction_the_second_is_a_duplicate_of_the_first(
    sync: Task[..., None], database: Database
) -> None:
    conn = database.connect(autocommit=False)
    unique = sync.using(conn).options(unique="k")
    first = unique.enqueue(1)
    second = unique.enqueue(1)
    assert (second.id, second.duplicate) == (first.id, True)
    conn.rollback()
    assert not unique.enqueue(1).duplicate
    conn.commit()


def test_who_meets_an_uncommitted_key_waits_for_its_fate(
    sync: Task[..., None], database: Database, query: Query
) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    for fate in ("commit", "rollback"):
        conn = database.connect(autocommit=False)
        unique = sync.options(unique=fate)
        first = unique.options(conn=conn).enqueue(1)
        with ThreadPoolExecutor(1) as pool:
            second = pool.submit(unique.enqueue, 2)
            while query(waiting) != [(1,)]:
                assert not second.done()
            getattr(conn, fate)()
            found = second.result(10)
        assert (found.duplicate, found.id == first.id) == ((True, True) if fate == "commit" else (False, False))


def test_a_snapshot_that_cannot_see_the_key_is_a_serialization_failure(
    sync: Task[..., None], database: Database
) -> None:
    conn = database.connect(autocommit=False)
    conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    conn.execute("SELECT 1")
    sync.options(unique="k").enqueue(1)
    with pytest.raises(psycopg.errors.SerializationFailure):
        sync.using(conn).options(unique="k").enqueue(1)
    conn.rollback()


# --- many at once


def test_many_jobs_with_keys_are_those_that_are_new(sync: Task[..., None], query: Query) -> None:
    unique = sync.options(unique=True)
    unique.enqueue(2)
    assert unique.enqueue_many([(1,), (2,), {"user_id": 3}, (1,)]) == 2
    assert unique.enqueue_many([(n,) for n in range(5)]) == 2  # 0 and 4
    found = query("SELECT args ->> 'user_id', holds_key FROM qworker.job ORDER BY seq")
    assert found == [("2", True), ("1", True), ("3", True), ("0", True), ("4", True)]


def test_their_ids_are_those_of_the_new_jobs_in_their_order(app: App, sync: Task[..., None]) -> None:
    unique = sync.options(unique=True)
    unique.enqueue(500)
    ids = unique.enqueue_many(((n,) for n in range(1_000)), ids=True)
    assert len(ids) == 999
    assert [app.job(job).args["user_id"] for job in ids[498:502]] == [498, 499, 501, 502]


def test_their_keys_are_those_of_single_jobs(sync: Task[..., None], fake_worker: FakeWorker) -> None:
    unique = sync.options(unique=True)
    (job,) = unique.enqueue_many([{"full": True, "user_id": 7}], ids=True)
    assert unique.enqueue(7, full=True).id == job
    assert fake_worker.claim() == job
    fake_worker.complete(job)
    assert unique.enqueue_many([(7, True)]) == 1


def test_many_keys_may_be_held_for_a_period(sync: Task[..., None], fake_worker: FakeWorker, query: Query) -> None:
    unique = sync.options(unique_for=60, delay=5, tags=["x"], expires=90)
    assert unique.enqueue_many([(1,), (1,)]) == 1
    ((state, tags, flag, left),) = query(
        "SELECT state, tags, holds_key, extract(epoch FROM expires_at - now()) FROM qworker.job"
    )
    assert (state, tags, flag) == ("scheduled", ["x"], False)
    assert 80 < left <= 90
    query("UPDATE qworker.unique_key SET expires_at = now() - interval '1 s' RETURNING key")
    assert unique.enqueue_many([(1,)]) == 1


def test_a_key_whose_job_is_gone_is_taken_over_by_one_of_many(sync: Task[..., None], query: Query) -> None:
    unique = sync.options(unique=True)
    unique.enqueue(1)
    query("DELETE FROM qworker.job RETURNING id")
    assert unique.enqueue_many([(1,), (2,)]) == 2


def test_many_with_keys_are_all_or_none(sync: Task[..., None], query: Query) -> None:
    with pytest.raises(TypeError, match=r"row 15: args\.user_id: object is not JSON"):
        sync.options(unique=True).enqueue_many([(n,) for n in range(15)] + [(object(),)])
    assert query("SELECT count(*) FROM qworker.job") == query("SELECT count(*) FROM qworker.unique_key") == [(0,)]


def test_one_key_for_many_rows_is_refused(sync: Task[..., None]) -> None:
    with pytest.raises(TypeError, match="all rows would be one job; pass unique=True"):
        sync.options(unique="k").enqueue_many([(1,), (2,)])


def test_many_with_keys_commit_with_the_caller(sync: Task[..., None], database: Database, query: Query) -> None:
    with database.connect(autocommit=False) as conn:
        assert sync.using(conn).options(unique=True).enqueue_many([(1,), (2,)]) == 2
        conn.rollback()
    assert query("SELECT count(*) FROM qworker.job") == [(0,)]
    assert sync.options(unique=True).enqueue_many([(1,), (2,)]) == 2


def test_two_bulks_at_once_make_each_job_once(app: App, sync: Task[..., None], query: Query) -> None:
    unique = sync.options(unique=True)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(unique.enqueue_many, [[(n,) for n in range(200)], [(n,) for n in range(199, -1, -1)]] * 4))
    assert sum(made) == 200
    assert query("SELECT count(*), count(DISTINCT args) FROM qworker.job") == [(200, 200)]


@pytest.mark.parametrize("many", [True, False])
def test_a_key_that_is_deleted_while_it_is_taken_over_is_taken(
    sync: Task[..., None], database: Database, query: Query, many: bool
) -> None:
    """The scheduler deletes keys whose period has ended."""
    unique = sync.options(unique=True, unique_for=3600)
    unique.enqueue(1)
    query("UPDATE qworker.unique_key SET expires_at = clock_timestamp() RETURNING 1")
    conn = database.connect(autocommit=False)
    conn.execute("DELETE FROM qworker.unique_key")
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(lambda: unique.enqueue_many([(1,), (2,)]) if many else unique.enqueue(1).duplicate)
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        until(lambda: query(waiting) == [(1,)])
        conn.commit()
        assert made.result(10) == (2 if many else False)
    assert query("SELECT count(*) FROM qworker.unique_key AS k JOIN qworker.job AS j ON j.id = k.job_id") == [
        (2 if many else 1,)
    ]


def test_two_bulks_take_over_the_same_keys_without_a_deadlock(sync: Task[..., None], query: Query) -> None:
    unique = sync.options(unique=True, unique_for=3600)
    rows = [(n,) for n in range(2000)]
    unique.enqueue_many(rows)
    for _ in range(5):
        query("UPDATE qworker.unique_key SET expires_at = clock_timestamp() RETURNING 1")
        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(unique.enqueue_many, [rows, rows[::-1]] * 2)) == len(rows)
