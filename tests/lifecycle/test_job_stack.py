"""The stacks of a running job are read on its node, whatever it does, and the job does not notice."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from qworker import App, Task
from qworker.stacks import StackUnavailable
from qworkerd.cli.main import main
from tests.lifecycle.cluster import SOON, Cluster
from tests.lifecycle.stack_handlers import app, awaits, deaf, in_c, sleeps, spins

APP = {"QWORKER_APP": "tests.lifecycle.stack_handlers:app"}


@pytest.fixture
def end(tmp_path: Path) -> Path:
    return tmp_path / "end"


@pytest.mark.parametrize(
    ("task", "part"), [(sleeps, "in sleeps"), (spins, "in spins"), (in_c, "in in_c"), (awaits, "run_once")],
    ids=["time.sleep", "loop", "C", "async"],
)  # fmt: skip
def test_a_stuck_job_shows_its_stack_and_goes_on(cluster: Cluster, end: Path, task: Task[..., Any], part: str) -> None:
    node = cluster.start("--processes", "2", **APP).await_ready()
    job = task.enqueue(str(end))
    cluster.await_notes("started", job=job.id)
    for _ in range(2):
        found = app.admin.stack(job.id)
        assert part in found.stacks, found.stacks
        assert found.stacks.count("most recent call first") <= 4
        assert (found.job, found.node is not None, found.ran > 0) == (job.id, True, True)
    end.touch()
    assert job.wait(SOON) == "undisturbed"
    assert job.refresh().attempt == 1
    assert cluster.value("SELECT count(*) FROM qworker.stack_request") == 0
    assert node.stop() == 0


def test_a_process_that_would_not_survive_the_signal_is_not_sent_it(cluster: Cluster, end: Path) -> None:
    cluster.start("--processes", "1", **APP).await_ready()
    job = deaf.enqueue(str(end))
    cluster.await_notes("started", job=job.id)
    with pytest.raises(StackUnavailable, match=r"process \d+ does not write its stacks"):
        app.admin.stack(job.id)
    end.touch()
    assert job.wait(SOON) == "undisturbed"
    assert job.refresh().attempt == 1


def test_it_works_from_node_to_node_and_for_many_at_once(cluster: Cluster, end: Path) -> None:
    nodes = [cluster.start("--processes", "1", **APP).await_ready() for _ in range(2)]
    jobs = [sleeps.enqueue(str(end)), spins.enqueue(str(end))]
    for job in jobs:
        cluster.await_notes("started", job=job.id)
    found = [app.admin.stack(job.id) for job in jobs]
    assert len({stack.pid for stack in found}) == 2
    assert ["in sleeps" in found[0].stacks, "in spins" in found[1].stacks] == [True, True]
    end.touch()
    assert [job.wait(SOON) for job in jobs] == ["undisturbed"] * 2
    assert [node.stop() for node in nodes] == [0, 0]


def test_the_command_prints_it(cluster: Cluster, end: Path) -> None:
    cluster.start("--processes", "1", **APP).await_ready()
    job = sleeps.enqueue(str(end))
    cluster.await_notes("started", job=job.id)
    env = {"QWORKER_DSN": cluster.database.dsn}
    shown = CliRunner().invoke(main, ["jobs", "stack", str(job.id)], env=env)
    assert (shown.exit_code, "in sleeps" in shown.output) == (0, True), shown.output
    assert f"job {job.id}, on " in shown.output
    assert (
        "in sleeps"
        in json.loads(CliRunner().invoke(main, ["jobs", "stack", str(job.id), "--json"], env=env).output)["stacks"]
    )
    end.touch()
    job.wait(SOON)
    late = CliRunner().invoke(main, ["jobs", "stack", str(job.id)], env=env)
    assert late.exit_code == 1
    assert f"job {job.id} is completed, and only a running job has a stack" in late.output


def test_a_stopped_worker_is_named_with_its_state(cluster: Cluster, end: Path) -> None:
    cluster.start("--processes", "1", "--stall-timeout", "60", **APP).await_ready()
    job = sleeps.enqueue(str(end))
    cluster.await_notes("started", job=job.id)
    pid = app.admin.stack(job.id).pid
    os.kill(pid, signal.SIGSTOP)
    try:
        reason = f"process {pid} of worker . has not written its stacks .*: it is stopped"
        with pytest.raises(StackUnavailable, match=reason):
            app.admin.stack(job.id, timeout=20)
    finally:
        os.kill(pid, signal.SIGCONT)
    end.touch()
    assert job.wait(SOON) == "undisturbed"


def test_a_node_that_does_not_answer_is_named(cluster: Cluster) -> None:
    conn = cluster.connect()
    conn.autocommit = True
    conn.execute(
        "INSERT INTO qworker.node (id, name, version, queues, worker_count, lease_seconds)"
        " VALUES (7, 'silent', '1', '{q}', 1, 30)"
    )
    ((job,),) = conn.execute(
        "INSERT INTO qworker.job (task, state, node, token, claimed_at) VALUES ('t', 'running', 7, 1, now())"
        " RETURNING id"
    ).fetchall()
    own = App(cluster.database.dsn)
    with pytest.raises(StackUnavailable, match="node silent has not answered"):
        own.admin.stack(job, timeout=0.3)
    conn.execute("DELETE FROM qworker.node")
    with pytest.raises(StackUnavailable, match="its node has ended"):
        own.admin.stack(job, timeout=0.3)
    assert conn.execute("SELECT count(*) FROM qworker.stack_request").fetchall() == [(0,)]
    own.close()
