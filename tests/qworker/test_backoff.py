"""Delays that grow."""

import pytest

from qworker.backoff import Backoff


def test_the_delay_grows_by_the_factor_up_to_the_longest() -> None:
    assert [Backoff(0.5, 30.0).delay(n) for n in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert [Backoff(1, 100, 3).delay(n) for n in range(1, 7)] == [1, 3, 9, 27, 81, 100]


def test_a_number_below_the_first_attempt_counts_as_the_first() -> None:
    assert [Backoff(5.0, 60.0).delay(n) for n in (0, -3)] == [5.0, 5.0]


@pytest.mark.parametrize(("first", "delay"), [(0.1, 60.0), (0, 0.0)])
def test_an_exponent_beyond_floats_is_the_longest_unless_the_first_is_zero(first: float, delay: float) -> None:
    assert Backoff(first, 60.0, 1000).delay(1_000_000) == delay
