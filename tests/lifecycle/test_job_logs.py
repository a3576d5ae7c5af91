"""What a handler logs stands with its error; with job_logs = all, what every handler logs; and can be followed."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest

from qworker.job import Job
from qworker.job_logs import NewLines, logs_of
from qworkerd.log.job_lines import MAX_SIZE
from qworkerd.log.line_ring import MAX_LINES
from tests.lifecycle.cluster import SOON, Cluster
from tests.lifecycle.logging_handlers import (
    app,
    asks_for_time,
    commits,
    dies,
    fails,
    floods,
    in_a_thread,
    steps,
    succeeds,
)
from tests.waiting import until

APP = {"QWORKER_APP": "tests.lifecycle.logging_handlers:app", "QWORKER_LOG_LEVEL": "info"}


def run(cluster: Cluster, *jobs: Job, **environment: str) -> list[Job]:
    assert cluster.start("--processes", "1", "--burst", **(APP | environment)).wait(SOON) == 0
    return [job.refresh() for job in jobs]


def test_the_lines_of_each_failed_attempt_are_stored(cluster: Cluster) -> None:
    job, done = run(cluster, fails.enqueue(), succeeds.enqueue())
    first, second = logs_of(job)
    assert (first.attempt, second.attempt, first.dropped) == (1, 2, 0)
    for log in (first, second):
        assert [line.event for line in log.lines] == ["begun", "line 0", "line 1", "line 2", "caught"]
        assert [line.level for line in log.lines] == ["info", "warning", "warning", "warning", "error"]
        assert log.lines[0].fields == {"order": 17, "password": "***", "text": "\x1b[2J\N{REPLACEMENT CHARACTER}\u202e"}
        assert log.lines[1].fields == {"logger": "shop", "basket": 0}
        assert "KeyError: 'k'" in log.lines[4].fields["exception"]
        assert all(line.at is not None for line in log.lines)
    assert logs_of(job, 2) == [second]
    assert logs_of(done) == []
    assert "hunter2" not in json.dumps(job.errors)


def test_the_last_lines_are_kept(cluster: Cluster) -> None:
    many, long = run(cluster, fails.enqueue(300), floods.enqueue())
    (log, _) = logs_of(many)
    assert len(log.lines) == MAX_LINES
    assert log.dropped == 302 - MAX_LINES
    assert log.lines[-1].event == "caught"
    (log,) = logs_of(long)
    assert log.lines[-1].fields == {"number": 999}
    assert MAX_SIZE * 0.9 < len(json.dumps(long.errors[-1]["logs"])) < MAX_SIZE * 1.2
    assert log.dropped == 1000 - len(log.lines)


def test_lines_without_the_context_of_the_job_are_not_its_lines(cluster: Cluster) -> None:
    (job,) = run(cluster, in_a_thread.enqueue())
    assert [line.event for line in logs_of(job)[0].lines] == ["own"]


@pytest.mark.parametrize("environment", [{"QWORKER_JOB_LOGS": "off"}, {"QWORKER_LOG_LEVEL": "error"}])
def test_lines_that_are_not_wanted_are_not_stored(cluster: Cluster, environment: dict[str, str]) -> None:
    (job,) = run(cluster, fails.enqueue(), **environment)
    events = [line.event for log in logs_of(job) for line in log.lines]
    assert events == ([] if "QWORKER_JOB_LOGS" in environment else ["caught"] * 2)


def test_the_lines_of_a_killed_worker_stand_with_its_error(cluster: Cluster) -> None:
    (job,) = run(cluster, dies.enqueue())
    assert job.errors[-1]["type"] == "WorkerDied"
    (log,) = logs_of(job)
    assert [line.event for line in log.lines] == ["last words"]
    assert "job" not in log.lines[0].fields


def test_all_attempts_are_stored_if_that_is_wanted(cluster: Cluster, tmp_path: Path) -> None:
    done, failed, snoozed, committed = run(
        cluster, succeeds.enqueue(), fails.enqueue(), asks_for_time.enqueue(str(tmp_path / "tried")), commits.enqueue(),
        QWORKER_JOB_LOGS="all",
    )  # fmt: skip
    (log,) = app.admin.logs(done.id)
    assert ([line.event for line in log.lines], log.running) == (["only the log has this"], False)
    assert log.claimed_at == done.claimed_at
    assert log.lines[0].fields == {}
    assert [log.attempt for log in app.admin.logs(failed.id)] == [1, 2]
    assert [log.attempt for log in app.admin.logs(failed.id, 2)] == [2]
    first, second = app.admin.logs(snoozed.id)
    assert [line.event for line in first.lines] == ["not yet", "job.snoozed"]
    assert [line.event for line in second.lines] == ["not yet"]
    assert [line.event for line in app.admin.logs(committed.id)[0].lines] == ["committed"]
    # The lines of failed attempts are stored once only.
    assert cluster.value("SELECT count(*) FROM qworker.job_log WHERE job = %s", failed.id) == 0


def test_nothing_is_written_for_successes_by_default(cluster: Cluster) -> None:
    run(cluster, succeeds.enqueue(), commits.enqueue())
    assert cluster.value("SELECT count(*) FROM qworker.job_log") == 0


def test_one_statement_stores_the_lines_of_a_batch(cluster: Cluster) -> None:
    """Rows of one INSERT have one xmin."""
    jobs = [succeeds.enqueue() for _ in range(100)]
    run(cluster, *jobs, QWORKER_JOB_LOGS="all")
    rows, statements = cluster.query("SELECT count(*), count(DISTINCT xmin::text) FROM qworker.job_log")[0]
    assert rows == 100
    assert statements <= 20


def follower(job: int, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "qworkerd", "jobs", "logs", str(job), "--follow", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_running_job_can_be_followed_through_a_retry(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start("--processes", "2", **APP).await_ready()
    job = steps.enqueue(str(tmp_path), 2, fail=True)
    assert cluster.value("SELECT count(*) FROM qworker.live_log") == 0
    with follower(job.id, "--json") as client:
        assert client.stdout is not None
        for attempt in (1, 2):
            for number in range(3):
                (tmp_path / f"{attempt}.{number}").touch()
                began = monotonic()
                line = json.loads(client.stdout.readline())
                assert (line["attempt"], line["event"], line["fields"]) == (attempt, "step", {"number": number})
                assert monotonic() - began < (5 if number else 10)
        rest, said = client.communicate(timeout=SOON)
    assert (rest, client.returncode) == ("", 0)
    assert "is completed" in said
    assert cluster.value("SELECT count(*) FROM qworker.live_log") == 0
    # Without job_logs = all, the lines of an attempt that somebody follows are stored: the last ones would be lost.
    assert [log.attempt for log in app.admin.logs(job.id)] == [1, 2]


def test_an_interrupted_follower_leaves_nothing_behind(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start("--processes", "1", **APP).await_ready()
    job = steps.enqueue(str(tmp_path), 1)
    with follower(job.id) as client:
        (tmp_path / "1.0").touch()
        assert client.stdout is not None
        assert client.stdout.readline() == "attempt 1\n"
        assert "step  number=0" in client.stdout.readline()
        client.send_signal(signal.SIGINT)
        client.communicate(timeout=SOON)
    assert client.returncode == 1
    assert cluster.value("SELECT count(*) FROM qworker.live_log") == 0
    (tmp_path / "1.1").touch()
    job.wait(SOON)


def page_when(job: Job, wanted: Callable[[NewLines], bool]) -> NewLines:
    pages: list[NewLines] = []

    def look() -> bool:
        pages.append(app.admin.lines_after(job.id, follow=True))
        return wanted(pages[-1])

    until(look)
    return pages[-1]


def test_a_page_follows_by_its_cursor(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start("--processes", "1", **APP).await_ready()
    job = steps.enqueue(str(tmp_path), 1)
    (tmp_path / "1.0").touch()
    found = page_when(job, lambda page: bool(page.attempts))
    assert [(log.running, line.fields) for log in found.attempts for line in log.lines] == [(True, {"number": 0})]
    assert app.admin.lines_after(job.id, found.cursor, follow=True).attempts == ()
    (tmp_path / "1.1").touch()
    assert job.wait(SOON) is None
    last = app.admin.lines_after(job.id, found.cursor)
    assert last.job.finished
    assert [(log.running, line.fields) for log in last.attempts for line in log.lines] == [(False, {"number": 1})]
    assert app.admin.lines_after(job.id, last.cursor).attempts == ()
    app.admin.unfollow(job.id)
    with pytest.raises(ValueError, match="'x' is not a cursor"):
        app.admin.lines_after(job.id, "x")


def test_a_node_without_lines_says_so(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start("--processes", "1", **APP, QWORKER_JOB_LOGS="off").await_ready()
    job = steps.enqueue(str(tmp_path), 0)
    page = page_when(job, lambda page: page.problem is not None)
    assert page.problem == "its node keeps no lines (job_logs = off)"
    (tmp_path / "1.0").touch()
    job.wait(SOON)
    app.admin.unfollow(job.id)
