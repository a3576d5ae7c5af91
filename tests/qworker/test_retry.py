"""The retry policy."""

import json
from typing import Any

import pytest

from qworker import App, PermanentError, Retry, TransientError
from qworker.errors import QworkerError
from tests.attempts import attempt


class ShopError(Exception):
    pass


class SoldOut(ShopError):
    pass


def middle() -> float:
    return 0.5


def test_pauses_double_from_fifteen_seconds_up_to_an_hour() -> None:
    retry = Retry(20)
    assert [retry.delay(n, middle) for n in (1, 2, 3, 8, 9, 10, 1000)] == [15, 30, 60, 1920, 3600, 3600, 3600]


def test_jitter_moves_a_pause_by_a_tenth_either_way() -> None:
    assert Retry().delay(1, lambda: 0.0) == pytest.approx(13.5)
    assert Retry().delay(1, lambda: 1.0) == pytest.approx(16.5)


def test_an_exponent_beyond_floats_is_the_cap() -> None:
    assert Retry(10_000, factor=1000.0).delay(9_999, middle) == 3600


@pytest.mark.parametrize("attempt", [1, 3, 1_100, 999_999])
def test_a_backoff_of_nothing_runs_again_at_once(attempt: int) -> None:
    assert Retry(backoff=0).delay(attempt, middle) == 0


def test_permanent_errors_are_never_tried_again() -> None:
    assert not Retry(only_on=PermanentError).allows(PermanentError("no"))  # type: ignore[arg-type]


def test_subclasses_count_for_never_on() -> None:
    retry = Retry(never_on=(ShopError,))
    assert not retry.allows(SoldOut())
    assert retry.allows(ValueError())


def test_only_on_excludes_all_others_but_transient_errors() -> None:
    retry = Retry(only_on=(ShopError, "ConnectionError"))
    assert retry.allows(SoldOut())
    assert retry.allows(ConnectionResetError())
    assert not retry.allows(ValueError())
    assert retry.allows(TransientError(retry_after=5))


def test_never_on_beats_only_on() -> None:
    assert not Retry(never_on=(SoldOut,), only_on=(ShopError,)).allows(SoldOut())


def test_errors_may_be_named_without_importing_them() -> None:
    retry = Retry(never_on=(f"{__name__}.ShopError", "builtins.OSError"))
    assert not retry.allows(SoldOut())
    assert not retry.allows(FileNotFoundError())


def test_a_policy_survives_json() -> None:
    retry = Retry(7, backoff=1.5, factor=3, cap=60, jitter=0, never_on=(ShopError,), only_on=("KeyError", QworkerError))
    again = Retry.from_json(json.loads(json.dumps(retry.to_json())))
    assert again == retry
    assert not again.allows(SoldOut())


def test_a_newer_versions_fields_are_left_out() -> None:
    assert Retry.from_json({"attempts": 4, "moonphase": "full"}) == Retry(4)


@pytest.mark.parametrize(("given", "attempts"), [(5, 5), (1, 1), (False, 1), (Retry(2), 2)])
def test_a_policy_can_be_given_short(given: Any, attempts: int) -> None:
    assert Retry.of(given).attempts == attempts


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"attempts": 0}, ValueError, "from 1 (no retry) to 1,000,000, not 0"),
        ({"attempts": -3}, ValueError, "-3"),
        ({"attempts": True}, TypeError, "True"),
        ({"attempts": 2.5}, TypeError, "2.5"),
        ({"backoff": -1}, ValueError, "backoff must be from 0"),
        ({"backoff": float("nan")}, ValueError, "nan"),
        ({"backoff": "15"}, TypeError, "'15'"),
        ({"factor": 0.5}, ValueError, "factor must be from 1"),
        ({"cap": float("inf")}, ValueError, "inf"),
        ({"jitter": 1.1}, ValueError, "a fraction"),
        ({"never_on": (42,)}, TypeError, "42"),
        ({"never_on": ("not a name",)}, TypeError, "not a name"),
        ({"only_on": (int,)}, TypeError, "only_on takes exception classes"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_value(
    fields: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        Retry(**fields)
    assert message in str(caught.value)


@pytest.mark.parametrize("given", [True, None, "5", 2.0])
def test_a_short_policy_is_a_number_or_false(given: Any) -> None:
    with pytest.raises(TypeError, match="retry takes"):
        Retry.of(given)


# --- delays by error


def test_the_most_specific_error_of_a_mapping_counts() -> None:
    retry = Retry(delays={ShopError: 60, SoldOut: 600.0, "ConnectionError": 5})
    assert retry.delay_after(attempt(), SoldOut(), middle) == 600
    assert retry.delay_after(attempt(), ShopError(), middle) == 60
    assert retry.delay_after(attempt(), ConnectionResetError(), middle) == 5
    assert retry.delay_after(attempt(2), KeyError(), middle) == 30  # the backoff
    assert retry.delay_after(attempt(), ShopError(), lambda: 1.0) == pytest.approx(66)  # with jitter


def test_a_mapping_is_stored_with_a_job_and_a_function_is_refused() -> None:
    retry = Retry(delays={SoldOut: 600.0, ConnectionError: 5})
    assert Retry.from_json(json.loads(json.dumps(retry.to_json()))) == retry
    assert {retry: 1}[retry] == 1
    with pytest.raises(TypeError, match="delays is a function, which cannot be stored"):
        App("").task(name="send")(lambda: None).options(retry=Retry(delays=lambda _job, _error: 5.0))


@pytest.mark.parametrize(
    ("delays", "said"),
    [
        (5, "takes a mapping of errors to seconds or a function"),
        ({5: 5}, "exception classes or their dotted names"),
        ({ValueError: "5"}, r"delays\[ValueError\] must be a number"),
        ({ValueError: -1}, r"delays\[ValueError\] must be from 0"),
    ],
)
def test_invalid_delays_are_refused(delays: Any, said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        Retry(delays=delays)
