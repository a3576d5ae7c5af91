"""A control group that is too small: the kernel kills the worker, and the record says so."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from qworker import JobState
from tests.lifecycle.cluster import Cluster, reached
from tests.lifecycle.hostile import hungry
from tests.waiting import until

#: A node of one worker takes a fraction of it (MiB).
ROOM = 256


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group whose processes may take ROOM in all (cgroups(7): version 1, or 2)."""
    name = f"qworker-test-{secrets.token_hex(4)}"
    for folder, limit, swap in (
        (Path("/sys/fs/cgroup/memory") / name, "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
        (Path("/sys/fs/cgroup") / name, "memory.max", "memory.swap.max"),
    ):
        if limited(folder, limit):
            if (folder / swap).exists():
                (folder / swap).write_text("0" if swap == "memory.swap.max" else str(ROOM << 20))
            break
    else:
        pytest.skip("no control group can be made here: it takes root, and the memory controller")
    yield folder
    until(lambda: not (folder / "cgroup.procs").read_text(), what="the end of all that is in the group")
    folder.rmdir()


def limited(folder: Path, limit: str) -> bool:
    """Make the group, if it can be."""
    try:
        folder.mkdir()
    except OSError:
        return False
    try:
        (folder / limit).write_text(str(ROOM << 20))
    except OSError:
        folder.rmdir()
        return False
    return True


def test_a_worker_that_the_kernel_kills_for_memory_is_recorded_as_such(group: Path, cluster: Cluster) -> None:
    join = ("sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh")
    node = cluster.start("--processes", "1", through=join, QWORKER_APP="tests.lifecycle.hostile:app").await_ready()
    job = reached(hungry.enqueue(2 * ROOM), timeout=30)
    assert (job.state, job.attempt, job.crashes) == (JobState.COMPLETED, 2, 1)
    (error,) = job.errors
    assert error["cause"] == "oom"
    died = node.await_event("child.died", job=job.id)
    assert died["cause"] == "oom"
    assert died["maxrss_mib"] > ROOM / 2
    assert cluster.notes("fed") == []
    assert node.stop() == 0
