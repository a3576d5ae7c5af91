"""Durations as text."""

from math import inf, nan

import pytest

from qworker.durations import format_duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.25, "250ms"), (4.5, "4.5s"), (3_723, "1h2m"), (inf, "forever"), (-inf, "forever"),
     (nan, "an unknown time")],
)  # fmt: skip
def test_a_duration_has_its_two_largest_units(seconds: float, text: str) -> None:
    """A time that was edited by hand may be infinite."""
    assert format_duration(seconds) == text
