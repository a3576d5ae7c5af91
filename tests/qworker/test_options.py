"""The options of a job."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from qworker.options import UNSET, Options
from qworker.spec import JobSpec


def test_an_unknown_option_is_refused_with_those_that_exist() -> None:
    with pytest.raises(TypeError) as caught:
        Options.of({"limit_key": "x"})
    assert "unknown option 'limit_key'; expected one of queue, priority, delay, run_at, expires" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("countdown", "; write delay=..., in seconds or as a timedelta"),
        ("eta", "; write run_at=..., an aware datetime"),
        ("max_retries", "; write retry="),
        ("timout", "; did you mean 'timeout'?"),
    ],
)
def test_an_option_of_another_library_names_ours(name: str, word: str) -> None:
    with pytest.raises(TypeError) as caught:
        Options.of({name: 5})
    assert f"unknown option {name!r}{word}" in str(caught.value)


@pytest.mark.parametrize(
    ("named", "error", "message"),
    [
        ({"queue": ""}, ValueError, "queue must have 1 to 200 printable characters, not ''"),
        ({"queue": "a\0b"}, ValueError, r"'a\x00b'"),
        ({"queue": "x" * 201}, ValueError, "1 to 200"),
        ({"queue": "a,b"}, ValueError, "queue must not contain a comma or begin or end with a blank"),
        ({"queue": " a"}, ValueError, ": ' a'"),
        ({"queue": "a "}, ValueError, ": 'a '"),
        ({"queue": None}, TypeError, "queue must be a string, not None"),
        ({"priority": 10}, ValueError, "priority must be from 0 (first) to 9, not 10"),
        ({"priority": -1}, ValueError, "-1"),
        ({"priority": True}, TypeError, "True"),
        ({"priority": "5"}, TypeError, "'5'"),
        ({"delay": -1}, ValueError, "delay must be from 0 seconds"),
        ({"delay": float("nan")}, ValueError, "nan"),
        ({"delay": 1e12}, ValueError, "a hundred years"),
        ({"delay": "60"}, TypeError, "delay takes seconds or a timedelta, not '60'"),
        ({"run_at": 5}, TypeError, "run_at takes an aware datetime, not 5"),
        ({"run_at": datetime(2026, 1, 1)}, ValueError, "has no time zone"),  # noqa: DTZ001
        ({"expires": 0}, ValueError, "expires must be more than 0"),
        ({"expires": datetime(2026, 1, 1)}, ValueError, "has no time zone"),  # noqa: DTZ001
        ({"timeout": 0}, ValueError, "timeout=None disables it"),
        ({"timeout": "1"}, TypeError, "'1'"),
        ({"retry": 0}, ValueError, "from 1 (no retry)"),
        ({"unique": ""}, ValueError, "unique must have 1 to 400"),
        ({"unique": 7}, TypeError, "unique must be a string, not 7"),
        ({"unique_for": 0}, ValueError, "unique_for must be more than 0"),
        ({"unique": False, "unique_for": 5}, TypeError, "exclude each other"),
        ({"tags": "word"}, TypeError, "tags must be a list of strings, not 'word'"),
        ({"tags": ["a", ""]}, ValueError, "tags[1]"),
        ({"tags": ["a"] * 51}, ValueError, "51 tags"),
        ({"delay": 1, "run_at": datetime.now(UTC)}, TypeError, "exclude each other"),
        ({"delay": 60, "expires": 60}, ValueError, "would never run"),
        (
            {"run_at": datetime(2030, 1, 2, tzinfo=UTC), "expires": datetime(2030, 1, 1, tzinfo=UTC)},
            ValueError,
            "would never run",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_value(
    named: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        Options.of(named)
    assert message in str(caught.value)


def test_the_way_out_of_a_naive_datetime_is_named() -> None:
    with pytest.raises(ValueError, match=r"datetime\.now\(UTC\).*ZoneInfo.*astimezone"):
        Options.of({"run_at": datetime(2026, 1, 1)})  # noqa: DTZ001


def test_durations_become_seconds_and_moments_utc() -> None:
    options = Options.of(
        {
            "delay": timedelta(minutes=2),
            "timeout": timedelta(seconds=1.5),
            "expires": datetime(2030, 1, 1, 12, tzinfo=timezone(timedelta(hours=2))),
        }
    )
    assert (options.delay, options.timeout) == (120.0, 1.5)
    assert options.expires == datetime(2030, 1, 1, 10, tzinfo=UTC)


def test_later_words_win_and_the_rest_stays() -> None:
    first = Options.of({"queue": "a", "priority": 1, "delay": 5, "tags": ["x"]})
    merged = first.merge(Options.of({"priority": 0, "run_at": datetime(2030, 1, 1, tzinfo=UTC)}))
    assert (merged.queue, merged.priority, merged.tags, merged.delay) == ("a", 0, ("x",), UNSET)


def test_a_job_of_a_unique_task_may_be_none() -> None:
    order = JobSpec.of("t", Options.of({"unique_for": 60}), Options.of({"unique": False}))
    assert (order.unique, order.unique_seconds) == (False, None)


def test_an_explicit_none_is_something_given() -> None:
    order = JobSpec.of("t", Options.of({"timeout": 30}), Options.of({"timeout": None}))
    assert order.overrides == '{"timeout": "none"}'


def test_a_tasks_own_timeout_and_retry_are_not_copied_into_its_jobs() -> None:
    assert JobSpec.of("t", Options.of({"timeout": 30, "retry": 5}), Options()).overrides is None


def test_unique_for_alone_makes_the_arguments_the_key() -> None:
    order = JobSpec.of("t", Options(), Options.of({"unique_for": 60}))
    assert (order.unique, order.unique_seconds) == (True, 60.0)
    assert JobSpec.of("t", Options(), Options()).unique is False
