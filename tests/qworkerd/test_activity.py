"""When a node finds that nothing happens, and what it then does less often."""

from dataclasses import replace

import pytest

from qworker.registry import PollResult
from qworkerd.scheduler import activity
from qworkerd.scheduler.activity import Activity
from qworkerd.scheduler.lease import RENEW_INTERVAL
from qworkerd.scheduler.loop import QUIET_FACTOR
from qworkerd.scheduler.poller import NO_RESULT
from qworkerd.shared.tally import Tally
from tests.qworkerd.test_scheduler import Harness
from tests.qworkerd.test_scheduler import harness as harness_fixture

harness = harness_fixture


def test_claims_new_jobs_and_jobs_that_run_or_wait_are_activity(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(activity, "monotonic", lambda: now)
    tally = Tally(3)
    watch, result = Activity(tally), replace(NO_RESULT, last_seq=6)

    def quiet(seen: PollResult) -> tuple[bool, bool]:
        """Return whether it is quiet after a poll, and some time later."""
        nonlocal now
        watch.observe(seen)
        before = watch.is_quiet
        now += activity.QUIET_AFTER
        return before, watch.is_quiet

    quiet(result)
    assert quiet(result) == (True, True)
    newer = replace(result, last_seq=7)
    assert quiet(newer) == (False, True)
    tally.writer(2).claimed(5, 0.1)
    assert quiet(newer) == (False, True)
    assert quiet(replace(newer, has_running=True)) == (False, True)
    assert quiet(replace(newer, first_available=[None, 3])) == (False, True)
    assert quiet(newer) == (True, True)


def test_a_quiet_node_polls_less_often_while_notifications_tell_it_of_jobs(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = harness.scheduler
    monkeypatch.setattr(activity, "QUIET_AFTER", 0.0)
    monkeypatch.setattr(scheduler.notifications, "listening", True)
    scheduler.set_pace()
    assert scheduler.poller.clock.interval == scheduler.lease.clock.interval == RENEW_INTERVAL * QUIET_FACTOR
    monkeypatch.setattr(scheduler.notifications, "listening", False)
    scheduler.set_pace()
    assert scheduler.poller.clock.interval == scheduler.lease.clock.interval == RENEW_INTERVAL
