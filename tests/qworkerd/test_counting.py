"""What a write is counted as."""

from types import SimpleNamespace
from typing import Any

from qworkerd.outcomes.counting import count_written
from qworkerd.outcomes.writes import CompleteWrite
from qworkerd.shared.series import FIRST
from qworkerd.shared.tally import Counter, Tally


def test_jobs_that_the_database_has_not_taken_are_not_counted() -> None:
    claim: Any = SimpleNamespace(token=1)
    write, tally = CompleteWrite(claim), Tally(1)
    for job in (1, 2, 3):
        write.add(job, None)
    facts = dict.fromkeys((1, 2, 3), (FIRST, 0.25))
    count_written(tally.writer(0), write, {2}, facts)
    assert tally.read(FIRST)[Counter.SUCCEEDED] == 1
    count_written(tally.writer(0), write, set(), facts)
    assert tally.read(FIRST)[Counter.SUCCEEDED] == 1
