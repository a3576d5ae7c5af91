"""What is dear becomes rare."""

import pytest

from qworkerd.process.throttle import Throttle


def test_what_is_cheap_is_due_after_its_time() -> None:
    throttle = Throttle(1000, interval=5.0, cheap=0.05)
    assert throttle.due == 0.0
    for took in (0.001, 0.002, 0.05, 0.05):
        throttle.record(100.0, took)
        assert throttle.due == 105.0


def test_one_that_is_dear_alone_had_bad_luck() -> None:
    throttle = Throttle(1000, interval=5.0, cheap=0.05)
    for took in (3.0, 0.001, 3.0):
        throttle.record(100.0, took)
        assert throttle.due == 105.0


def test_what_is_dear_again_and_again_takes_no_more_than_its_share() -> None:
    throttle = Throttle(1000, interval=5.0, cheap=0.05)
    throttle.record(100.0, 0.2)
    throttle.record(100.0, 0.3)
    assert throttle.due == pytest.approx(300.0)
