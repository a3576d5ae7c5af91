"""The statements for stored schedules."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from qworker import App, JobState
from qworker.decoding import Unreadable
from qworker.options import Options
from qworker.schedules import StoredSchedules, tick_of
from qworker.spec import JobSpec
from tests.qworker.claimer import NOW, Claimer
from tests.qworker.conftest import FakeWorker, Query

schedules = StoredSchedules()

MINUTE = 60.0
TICK = NOW.timestamp() + MINUTE
SPEC = JobSpec.of("noop", Options(), Options())


def declare(claimer: Claimer, node: int, timezone: str = "UTC") -> None:
    schedules.declare(
        claimer.conn, node, name="minutely", task="noop", expression="* * * * *", timezone=timezone,
    )  # fmt: skip
    # NOW is when the tests were imported: a minute later TICK would be before the declaration, and no tick of it.
    claimer.conn.execute("UPDATE qworker.cron SET created_at = %s", (NOW,))


def tick(claimer: Claimer, at: float = TICK, spec: JobSpec = SPEC, key: str | None = None) -> tuple[int | None, ...]:
    """Return the job and the holder of one tick; an empty tuple if the tick was not recorded."""
    found = schedules.tick(
        claimer.conn, spec, key, name="minutely", tick=at, expression="* * * * *", timezone="UTC", at=at
    )
    return () if found is None else (found.job, found.holder)


def test_each_tick_is_enqueued_once_and_none_before_the_last(claimer: Claimer) -> None:
    declare(claimer, 1)
    (job, holder) = tick(claimer)
    assert job is not None
    assert holder is None
    assert tick(claimer) == ()
    assert tick(claimer, TICK - MINUTE) == ()
    assert len(tick(claimer, TICK + MINUTE)) == 2
    row = claimer.row(job)
    assert (row["task"], row["state"], row["args"], row["holds_key"]) == ("noop", "available", {}, False)
    assert row["overrides"] is None
    assert row["meta"] == {"cron": "minutely", "tick": datetime.fromtimestamp(TICK, UTC).isoformat()}


def test_a_job_tells_its_tick_before_and_after_its_end(
    claimer: Claimer, app: App, fake_worker: FakeWorker, query: Query
) -> None:
    declare(claimer, 1)
    job, _ = tick(claimer)
    assert job is not None
    other = app.task(name="other", queue="other")(lambda: None).enqueue()
    expected = {"cron": "minutely", "tick": datetime.fromtimestamp(TICK, UTC).isoformat()}
    meta = "SELECT meta, (meta ->> 'tick')::timestamptz FROM qworker.jobs WHERE id = %s"
    assert app.job(job).meta == expected
    assert other.meta is None
    assert other.refresh().meta is None
    for id_, queue in ((job, "default"), (other.id, "other")):
        assert fake_worker.claim(queue) == id_
        fake_worker.complete(id_)
    assert query("SELECT count(*) FROM qworker.job") == [(0,)]
    assert app.job(job).meta == expected
    assert app.job(other.id).meta is None
    assert query(meta, job) == [(expected, datetime.fromtimestamp(TICK, UTC))]


def test_a_meta_edited_by_hand_is_shown_as_it_can_be(app: App, query: Query) -> None:
    job = app.task(name="other")(lambda: None).enqueue()
    query("UPDATE qworker.job SET meta = '[1]' RETURNING id")
    assert app.job(job.id).state is JobState.AVAILABLE
    assert isinstance(app.job(job.id).meta, Unreadable)


def test_a_tick_of_another_declaration_is_not_enqueued(claimer: Claimer) -> None:
    declare(claimer, 1, "Europe/Berlin")
    assert tick(claimer) == ()


@pytest.mark.parametrize(("delay", "state"), [(0.0, "available"), (5.0, "scheduled")])
def test_the_job_of_a_tick_has_the_tasks_times(claimer: Claimer, delay: float, state: str) -> None:
    declare(claimer, 1)
    job, _ = tick(claimer, spec=replace(SPEC, delay=delay, expires=30.0))
    assert job is not None
    row = claimer.row(job)
    assert row["state"] == state
    assert row["expires_at"].timestamp() == pytest.approx(TICK + 30)
    assert (row["run_at"] and row["run_at"].timestamp()) == (pytest.approx(TICK + delay) if delay else None)


def test_a_tick_whose_key_is_held_is_recorded_without_a_job(claimer: Claimer) -> None:
    declare(claimer, 1)
    job, _ = tick(claimer, key="k")
    assert tick(claimer, TICK + MINUTE, key="k") == (None, job)
    assert tick(claimer, TICK + MINUTE, key="k") == (), "the tick is recorded"
    claimer.conn.execute("UPDATE qworker.job SET holds_key = false")
    later, holder = tick(claimer, TICK + 2 * MINUTE, key="k")
    assert (later is not None, holder) == (True, None)


def test_a_period_ends_by_the_time_of_the_tick(claimer: Claimer) -> None:
    declare(claimer, 1)
    spec = replace(SPEC, unique_seconds=90.0)
    job, _ = tick(claimer, spec=spec, key="k")
    assert tick(claimer, TICK + MINUTE, spec, "k") == (None, job)
    later, holder = tick(claimer, TICK + 2 * MINUTE, spec, "k")
    assert (later is not None, holder) == (True, None)


def test_only_old_schedules_that_no_node_declares_are_deleted(claimer: Claimer) -> None:
    declare(claimer, 1)
    assert schedules.delete_unused(claimer.conn) == 0
    old = "UPDATE qworker.cron SET declared_at = now() - interval '1 day', created_at = now() - interval '40 days'"
    claimer.conn.execute(old)
    assert schedules.delete_unused(claimer.conn) == 1


def test_a_request_that_is_sent_twice_runs_a_schedule_once(app: App, query: Query) -> None:
    app.task(name="plain")(lambda: None)
    app.task(name="keyed", unique="mine")(lambda: None)
    for name in ("plain", "keyed"):
        defaults = app.get_task(name).defaults
        jobs = [app.admin.run_schedule("s", *tick_of(name, defaults, once)) for once in ("a", "a", "b")]
        assert jobs[1].id == jobs[0].id
        assert jobs[1].duplicate
        assert jobs[2].duplicate is (name == "keyed")  # its own key holds, whatever the request
    query("UPDATE qworker.unique_key SET expires_at = now() WHERE task = 'plain' RETURNING 1")
    assert not app.admin.run_schedule("s", *tick_of("plain", app.get_task("plain").defaults, "a")).duplicate
