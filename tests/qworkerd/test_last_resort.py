"""An end that the database refuses for good: the job fails, loudly, and holds up neither its claim nor other jobs."""

from collections.abc import Iterator
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest

from qworkerd.outcomes.outcome import Completed, Failed, Outcome, Released, Retried
from tests.database import Database
from tests.qworkerd.choke import FAILURES, SUPPRESSED, choke
from tests.qworkerd.test_acknowledger import Harness, error
from tests.waiting import until

LogRecorder = list[tuple[str, Any]]


@pytest.fixture
def harness(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Harness]:
    monkeypatch.setattr("qworkerd.worker.write_queue.LAST_RESORT", 0.3)
    harness = Harness(database)
    yield harness
    harness.conn.execute("DROP FUNCTION IF EXISTS choke() CASCADE")
    harness.acknowledging.stop(1.0)
    harness.conn.close()


@pytest.fixture
def logged(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> LogRecorder:
    logged: LogRecorder = []

    def note(event: str, **facts: Any) -> None:
        logged.append((event, facts.get("jobs")))

    record = SimpleNamespace(warning=lambda *_, **__: None, info=note, error=note, critical=note)
    monkeypatch.setattr(harness.acknowledging._writes, "_log", record)
    return logged


@pytest.mark.parametrize("code", ["P0001", "23514", "54000", "54001", "XX000", "22003", SUPPRESSED])
@pytest.mark.parametrize("outcome", [None, Completed(0.5, '"yes"')], ids=["nothing", "result"])
def test_a_job_whose_acknowledgement_is_refused_for_ever_fails(
    harness: Harness, logged: LogRecorder, outcome: Outcome | None, code: str
) -> None:
    claim, ids, _ = harness.claim(5)
    choke(harness.conn, [ids[2]], "DELETE", code=code)
    harness.submit((claim, job, outcome) for job in ids)
    harness.acknowledging.wake()
    until(lambda: claim.token == 0)
    assert harness.states(ids) == ["completed"] * 2 + ["failed"] + ["completed"] * 2
    assert logged == [("job.end_refused", [ids[2]])]
    ((errors, token, node),) = harness.conn.execute("SELECT errors, token, node FROM qworker.job").fetchall()
    assert (token, node) == (None, None)
    assert errors[-1]["type"] == "EndRefused"
    assert ("suppresses" if code == SUPPRESSED else "no, never") in errors[-1]["message"]
    assert harness.acknowledging.is_done


@pytest.mark.parametrize("code", ["P0001", SUPPRESSED])
@pytest.mark.parametrize(
    "outcome", [Retried(5.0, error("A")), Failed(error("B"), hook=True), Released(1)], ids=["retry", "fail", "release"]
)
def test_so_does_a_job_of_which_another_end_is_refused(
    harness: Harness, logged: LogRecorder, outcome: Outcome, code: str
) -> None:
    claim, ids, _ = harness.claim(2)
    choke(harness.conn, [ids[0]], "UPDATE", but=FAILURES, code=code)
    harness.submit([(claim, ids[0], outcome), (claim, ids[1], None)])
    harness.acknowledging.wake()
    until(lambda: claim.token == 0)
    assert harness.states(ids) == ["failed", "completed"]
    assert logged == [("job.end_refused", [ids[0]])]


@pytest.mark.parametrize("code", ["P0001", SUPPRESSED])
def test_a_job_that_may_not_even_fail_is_put_away(harness: Harness, logged: LogRecorder, code: str) -> None:
    claim, ids, _ = harness.claim(2)
    choke(harness.conn, [ids[0]], "UPDATE", code=code)
    harness.submit([(claim, ids[0], Failed(error("A"), hook=True)), (claim, ids[1], None)])
    harness.acknowledging.wake()
    until(lambda: claim.token == 0)
    assert harness.states(ids) == ["discarded", "completed"]
    assert logged == [("job.end_refused", [ids[0]])]


@pytest.mark.parametrize("code", ["P0001", SUPPRESSED])
def test_a_row_that_nobody_can_change_holds_no_claim(harness: Harness, logged: LogRecorder, code: str) -> None:
    claim, ids, _ = harness.claim(2)
    choke(harness.conn, [ids[0]], "UPDATE", "DELETE", code=code)
    harness.submit((claim, job, None) for job in ids)
    harness.acknowledging.wake()
    until(lambda: claim.token == 0)
    assert harness.states(ids) == ["running", "completed"]
    assert logged == [("job.end_refused", [ids[0]]), ("job.abandoned", [ids[0]])]
    assert harness.acknowledging.is_done


def test_a_row_that_another_session_has_locked_is_not_taken_for_a_refused_one(
    harness: Harness, logged: LogRecorder
) -> None:
    claim, ids, _ = harness.claim(2)
    with harness.database.connect(autocommit=False) as other:
        other.execute("SELECT FROM qworker.job WHERE id = %s FOR UPDATE", [ids[0]])
        harness.submit((claim, job, None) for job in ids)
        harness.acknowledging.wake()
        until(lambda: harness.states(ids)[1] == "completed")
        wait = monotonic() + 1.0  # beyond the last resort
        until(lambda: monotonic() > wait)
    until(lambda: claim.token == 0)
    assert (harness.states(ids), logged) == (["completed"] * 2, [])
