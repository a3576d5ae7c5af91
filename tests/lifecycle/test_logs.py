"""What a node's log tells of a job, and what it never tells."""

import re
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from qworker import JobState
from tests.lifecycle import application as shop
from tests.lifecycle import handlers
from tests.lifecycle.cluster import SOON, Cluster, reached
from tests.lifecycle.node import Node


@pytest.fixture(scope="module")
def node(module_cluster: Cluster) -> Node:
    return module_cluster.start("--processes", "2", "--queues", "default,other", "--kill-grace", "0.5").await_ready()


def test_every_line_of_a_handler_says_which_job_it_belongs_to(node: Node) -> None:
    job = handlers.logs.options(queue="other").enqueue()
    job.wait(SOON)
    for event in ("by logging", "by structlog"):
        line = node.await_event(event, job=job.id)
        assert (line["task"], line["attempt"], line["queue"], line["level"]) == ("logs", 1, "other", "warning")
        assert line["role"] == "worker"
        assert line["duration"] >= 0
    assert node.await_event("by logging", job=job.id, logger="shop")["shelf"] == 3


def test_lines_outside_of_jobs_name_none(node: Node) -> None:
    shop.quick.enqueue().wait(SOON)
    for name in ("supervisor.ready", "node.registered", "child.spawned"):
        assert "job" not in node.await_event(name)


def test_ends_that_somebody_should_know_of_are_reported_and_others_only_when_debugging(
    node: Node, cluster: Cluster
) -> None:
    quiet = cluster.start("--processes", "1", QWORKER_LOG_LEVEL="info").await_ready()
    good, bad = shop.quick.enqueue(), handlers.raises.options(retry=1).enqueue("ValueError")
    assert reached(good).state is JobState.COMPLETED
    assert reached(bad).state is JobState.FAILED
    failed = quiet.await_event("job.failed", job=bad.id)
    assert (failed["level"], failed["error"]) == ("error", "ValueError: attempt 1")
    assert "raise kinds[error]" in failed["exception"]
    assert quiet.stop() == 0
    assert not quiet.events(job=good.id)


@pytest.mark.parametrize("file", ["go"])
def test_a_slow_job_is_reported_once_while_it_still_runs(node: Node, tmp_path: Path, file: str) -> None:
    job = handlers.slow.enqueue(str(tmp_path / file))
    line = node.await_event("job.slow", job=job.id)
    assert job.refresh().state is JobState.RUNNING
    assert (line["task"], line["attempt"], line["level"]) == ("slow", 1, "warning")
    assert 0.2 <= line["duration"] < SOON
    assert line["duration"] + line["timeout_in"] == pytest.approx(60, abs=0.01)
    (tmp_path / file).touch()
    job.wait(SOON)
    assert len(node.events("job.slow", job=job.id)) == 1


def test_a_slow_job_that_holds_the_gil_is_reported_while_it_still_runs(node: Node) -> None:
    job = handlers.slow_gil.enqueue()
    line = node.await_event("job.slow", job=job.id)
    assert job.refresh().state is JobState.RUNNING
    assert 0.2 <= line["duration"] < SOON
    assert line["timeout_in"] is None
    assert job.cancel()
    assert reached(job).state is JobState.CANCELLED


@pytest.mark.parametrize("form", ["url", "words"])
def test_the_password_is_in_no_line(cluster: Cluster, form: str) -> None:
    parts = conninfo_to_dict(cluster.database.dsn)
    password = str(parts["password"])
    assert len(password) >= 8
    dsn = {
        "url": "postgresql://{user}:{password}@{host}:{port}/{dbname}".format(**parts),
        "words": make_conninfo("", **parts),
    }[form]
    node = cluster.start("--processes", "1", "--kill-grace", "0.5", dsn=dsn).await_ready()
    job = handlers.logs.enqueue(dsn)
    assert reached(job).state is JobState.FAILED
    node.await_event("job.failed", job=job.id)
    reached(handlers.dies.options(retry=1).enqueue("segfault"))
    node.await_event("child.died")
    cluster.query(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert shop.answer.enqueue("back").wait(SOON) == "back"
    assert node.stop() == 0
    text = node.log.read_text()
    assert "cannot connect to" in text
    assert password not in text
    assert re.search(r"\*\*\*", text)
