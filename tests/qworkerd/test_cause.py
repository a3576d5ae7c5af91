"""Causes of death: what is stored, and what is counted."""

import pytest

from qworkerd.shared.cause import Cause


@pytest.mark.parametrize(("text", "cause"), [("signal:SEGV", Cause.SIGNAL), ("exit:1", Cause.EXIT), ("oom", Cause.OOM)])
def test_a_stored_cause_is_read_without_its_detail(text: str, cause: Cause) -> None:
    assert Cause.of(text) is cause


def test_a_cause_counts_an_attempt_or_a_loss_or_nothing() -> None:
    assert {cause for cause in Cause if cause.counts_attempt} == {Cause.TIMEOUT, Cause.OOM, Cause.SIGNAL, Cause.EXIT}
    assert {cause for cause in Cause if cause.counts_loss} == {Cause.STALLED, Cause.LEASE, Cause.SUPERVISOR_LOST}
