"""Whatever is said when a job is enqueued: a job that is what was meant, or an error that says what is wrong."""

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from qworker import App, QworkerError
from qworker.migrations import migrate
from qworkerd.embedded import EmbeddedPostgres
from tests.database import Database

ENOUGH = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))

#: What ends up in SQL, in JSON, in an index or on a terminal, and should do no harm in any of them.
EVIL = [
    "", " ", "'", '"', "'; DROP TABLE qworker.job; --", "%s", "%(id)s", "%", "\\", "\0", "\ud800", "a\udfffb", "\u202e",
    "\x1b[31m", "{schema}", "{}", "{0}", "$1", "$$", "NULL", "null", "x" * 201, "é" * 401, "\U0001f600", "*", "a\nb",
]  # fmt: skip


def nest(levels: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(levels):
        inner = [inner]
    return inner


texts = st.text(max_size=30) | st.sampled_from(EVIL)
numbers = (
    st.integers()
    | st.floats()
    | st.sampled_from([10**400, -(10**400), 2**63, -(2**63) - 1, 1e308, 5e-324, math.inf, math.nan, True, 0, -0.0])
)
deep = st.integers(1, 200).map(nest)
strange = st.sampled_from([b"bytes", object(), {1, 2}, datetime.now(UTC), 1j, Ellipsis, int, lambda: None, range(3)])
values = st.recursive(
    st.none() | st.booleans() | numbers | texts | strange,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(texts | st.integers(), inner, max_size=4) | st.tuples(inner)
    ),
    max_leaves=12,
) | deep  # fmt: skip
moments = st.datetimes() | st.datetimes(timezones=st.timezones() | st.just(timezone(timedelta(hours=23, minutes=59))))
durations = numbers | st.timedeltas() | texts | st.none()
options = st.fixed_dictionaries(
    {},
    optional={
        "queue": texts | values, "priority": numbers | values, "delay": durations, "run_at": moments | values,
        "expires": durations | moments, "timeout": durations, "retry": numbers | values, "unique": texts | values,
        "unique_for": durations, "tags": st.lists(texts, max_size=60) | values, "conn": st.none(),
    },
)  # fmt: skip


def explained(error: BaseException) -> None:
    """Fail for an error that says nothing."""
    assert str(error).strip()


def plain(value: Any) -> Any:
    """Return what JSON makes of a value."""
    return json.loads(json.dumps(value))


@pytest.fixture(scope="module")
def app(postgres_server: EmbeddedPostgres) -> Iterator[App]:
    database = Database.create(postgres_server, "qworker_fuzz")
    with psycopg.connect(database.dsn) as conn:
        migrate(conn)
    app = App(database.dsn)

    @app.task(name="take")
    def take(value: Any, *, other: Any = None) -> None: ...

    yield app
    app.close()
    database.drop(postgres_server)


@ENOUGH
@given(value=values, other=values)
@example(value="\0", other=None)
def test_arguments_are_kept_as_they_are_or_refused(app: App, value: Any, other: Any) -> None:
    try:
        job = app.get_task("take").enqueue(value, other=other)
    except (TypeError, ValueError, QworkerError) as error:
        explained(error)
        return
    kept = job.refresh().args
    assert kept["other"] == plain(other)
    assert plain(value) in ([*kept.get("*", [])], *kept.get("*", []), kept.get("value"))


@pytest.mark.parametrize("levels", [500, 5_000, 100_000])
def test_deep_nesting_is_kept_or_refused(app: App, levels: int) -> None:
    """Without Hypothesis, which could not show it."""
    try:
        job = app.get_task("take").enqueue(nest(levels))
    except (TypeError, ValueError) as error:
        explained(error)
        return
    assert job.refresh().args == {"*": [nest(levels)]}


@ENOUGH
@given(message=options)
@example(message={"delay": 10**400})
@example(message={"timeout": 10**400})
@example(message={"retry": 10**400})
@example(message={"run_at": datetime.max})  # noqa: DTZ901
@example(message={"expires": datetime.max.replace(tzinfo=UTC)})
@example(message={"expires": datetime(1, 1, 2, tzinfo=UTC)})
@example(message={"expires": datetime(1, 1, 2, tzinfo=UTC), "unique": True})
@example(message={"run_at": datetime(1, 1, 2, tzinfo=UTC), "expires": datetime(1969, 12, 31, tzinfo=UTC)})
def test_options_mean_what_they_say_or_are_refused(app: App, message: dict[str, Any]) -> None:
    try:
        job = app.get_task("take").options(**message).enqueue(1)
    except (TypeError, ValueError, QworkerError) as error:
        explained(error)
        return
    if job.duplicate:  # of one that an earlier example has made, in its own words
        return
    now = job.refresh()
    assert now.queue == message.get("queue", "default")
    assert now.priority == message.get("priority", 5)
    assert now.state in {"available", "scheduled"}


@ENOUGH
@given(
    words=st.fixed_dictionaries(
        {"task": texts | st.none()},
        optional={
            "args": texts,
            "queue": texts | st.none(),
            "priority": st.integers(-(2**31), 2**31 - 1) | st.none(),
            "run_at": texts | st.none(),
            "tags": st.lists(texts | st.none(), max_size=3) | st.none(),
        },
    )
)
def test_the_sql_function_makes_a_job_or_says_what_is_wrong(app: App, words: dict[str, Any]) -> None:
    types = {
        "task": "text",
        "args": "jsonb",
        "queue": "text",
        "priority": "int",
        "run_at": "timestamptz",
        "tags": "text[]",
    }
    call = ", ".join(f"{name} => %({name})s::{types[name]}" for name in words)
    with psycopg.connect(str(app.dsn), autocommit=True) as conn:
        try:
            row = conn.execute(f"SELECT qworker.enqueue({call})".encode(), words).fetchone()
        except (psycopg.errors.DataError, psycopg.errors.ProgramLimitExceeded, UnicodeEncodeError) as error:
            explained(error)
            return
    assert row is not None
    job = app.job(row[0]).refresh()
    assert job.task == words["task"]
    assert (job.queue, job.priority) == (words.get("queue", "default"), words.get("priority", 5))
