"""How much to claim at once."""

import pytest

from qworkerd.worker.batch_size import TARGET_DURATION, BatchSize


def test_batches_of_short_jobs_double_up_to_the_limit() -> None:
    paced, sizes = BatchSize(256), []
    for _ in range(10):
        sizes.append(paced.size)
        paced.record(paced.size, paced.size * 1e-5)
    assert sizes == [1, 2, 4, 8, 16, 32, 64, 128, 256, 256]


@pytest.mark.parametrize("limit", [1, 7])
def test_no_batch_is_larger_than_the_limit(limit: int) -> None:
    paced = BatchSize(limit)
    for _ in range(10):
        paced.record(paced.size, 0.0)
    assert paced.size == limit


def test_a_batch_of_long_jobs_is_followed_by_a_small_one() -> None:
    paced = BatchSize(256)
    for _ in range(10):
        paced.record(256, 256e-5)
    paced.record(1, 2 * TARGET_DURATION)
    assert paced.size == 1
    paced.record(1, TARGET_DURATION / 10)
    assert 1 <= paced.size <= 2


def test_a_batch_holds_as_much_work_as_it_should() -> None:
    paced = BatchSize(256)
    for _ in range(30):
        paced.record(paced.size, paced.size * TARGET_DURATION / 20)
    assert 18 <= paced.size <= 20


def test_a_batch_that_was_handed_back_whole_says_nothing() -> None:
    paced = BatchSize(256)
    paced.record(1, 1e-5)
    paced.record(0, 3.0)
    assert paced.size == 2
