"""The jobs of dead nodes."""

import pytest

from qworker.recovery import Recovery
from tests.qworker.claimer import TOKEN, Claimer

recovery = Recovery()

LOST = '{"type": "NodeLost", "cause": "node-lost"}'


def test_jobs_of_a_lost_node_are_released_uncounted_up_to_the_limit(claimer: Claimer) -> None:
    (job,) = claimer.insert()
    for node_losses in (1, 2, 3):
        claimer.claim(1)
        assert len(recovery.rescue(claimer.conn, 1, 3, LOST)) == 1
        row = claimer.row(job)
        assert (row["state"], row["attempt"], row["node_losses"], row["token"]) == (
            "available" if node_losses < 3 else "failed", 0, node_losses, None,
        )  # fmt: skip
        assert row["errors"][-1]["cause"] == "node-lost"


@pytest.mark.parametrize("hooks", [["noop"], []])
@pytest.mark.parametrize("own", [True, False])
def test_a_job_at_the_limit_of_losses_fails_like_any_other(claimer: Claimer, hooks: list[str], *, own: bool) -> None:
    """Its key is free, or all that is enqueued under it would be a duplicate of a job that nobody runs."""
    (job,) = claimer.insert()
    claimer.conn.execute("UPDATE qworker.job SET holds_key = true")
    claimer.conn.execute("INSERT INTO qworker.unique_key VALUES ('noop', 'k', %s)", (job,))
    for node_losses in (1, 2):
        claimer.claim(1)
        assert claimer.conn.execute("SELECT count(*) FROM qworker.unique_key").fetchall() == [(1,)]
        if own:
            assert len(recovery.record_node_loss(claimer.conn, TOKEN, job, 2, '{"cause": "lease"}', hooks)) == 1
        else:
            assert len(recovery.rescue(claimer.conn, 1, 2, LOST, hooks)) == 1
        assert claimer.row(job)["node_losses"] == node_losses
    assert (claimer.row(job)["state"], claimer.row(job)["holds_key"]) == ("failed", False)
    assert claimer.conn.execute("SELECT count(*) FROM qworker.unique_key").fetchall() == [(0,)]
    found = claimer.claim(10)
    assert [(hook.task, hook.is_hook, hook.args) for hook in found] == [("noop", True, f'{{"job": {job}}}')] * len(
        hooks
    )


@pytest.mark.parametrize("errors", ['{"oops": 1}', "null", "7", '"text"'])
def test_errors_edited_by_hand_do_not_prevent_the_release_of_a_nodes_jobs(claimer: Claimer, errors: str) -> None:
    job, other = claimer.insert(2)
    claimer.conn.execute("UPDATE qworker.job SET errors = %s::jsonb WHERE id = %s", (errors, job))
    claimer.claim(2)
    assert len(recovery.rescue(claimer.conn, 1, 10, LOST)) == 2
    assert [claimer.row(found)["errors"][-1]["type"] for found in (job, other)] == ["NodeLost"] * 2
