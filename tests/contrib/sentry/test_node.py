"""What the processes of a real node report to Sentry, those that are killed included."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.lifecycle.cluster import SOONER, Cluster
from tests.waiting import until

pytest.importorskip("sentry_sdk")

from qworker.contrib.sentry.extension import ATTEMPTS
from qworkerd import log
from tests.contrib.sentry.application import app

APP = {"QWORKER_APP": "tests.contrib.sentry.application:app"}


def sent(folder: Path, kind: str) -> list[tuple[int, Any]]:
    """Return what was sent of a kind, each with the process."""
    found = [
        (int(path.name.removeprefix("sentry-")), *json.loads(line))
        for path in sorted(folder.glob("sentry-*"))
        for line in path.read_text().rpartition("\n")[0].splitlines()
    ]
    return [(pid, payload) for pid, of, payload in found if of == kind]


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    app.close()


def test_only_the_last_attempt_is_an_error_and_the_others_are_its_breadcrumbs(cluster: Cluster) -> None:
    job = app.tasks["pay"].enqueue()
    node = cluster.start("--burst", "--processes", "1", *SOONER, **APP)
    assert node.wait(60) == 0
    ((_, event),) = sent(cluster.folder, "event")
    (error,) = event["exception"]["values"]
    assert (error["type"], error["value"]) == ("LookupError", "no card")
    assert error["stacktrace"]["frames"][-1]["function"] == "pay"
    assert event["transaction"] == "pay"
    assert event["contexts"]["qworker"] == {"job": job.id, "task": "pay", "queue": "default", "attempt": 2}
    assert event["fingerprint"] == [app.job(job.id).errors[-1]["fingerprint"]]
    messages = [crumb["message"] for crumb in event["breadcrumbs"]["values"]]
    assert messages == ["attempt 1 failed: LookupError: no card", "calling the bank"]
    transactions = [payload for _, payload in sent(cluster.folder, "transaction")]
    assert [found["contexts"]["trace"]["status"] for found in transactions] == ["internal_error"] * 2
    assert event["contexts"]["trace"]["trace_id"] == transactions[-1]["contexts"]["trace"]["trace_id"]


def test_a_trace_leads_through_the_processes_and_is_sent_before_they_end(cluster: Cluster) -> None:
    app.tasks["first"].enqueue()
    node = cluster.start("--burst", "--processes", "2", "--max-jobs-per-worker", "1", *SOONER, **APP)
    assert node.wait(60) == 0
    found = {payload["transaction"]: payload for _, payload in sent(cluster.folder, "transaction")}
    first, second = found["first"], found["second"]
    (process, publish) = first["spans"]
    assert [span["op"] for span in (process, publish)] == ["queue.process", "queue.publish"]
    assert second["contexts"]["trace"]["trace_id"] == first["contexts"]["trace"]["trace_id"]
    assert second["contexts"]["trace"]["parent_span_id"] == publish["span_id"]
    (processed,) = second["spans"]
    assert processed["data"]["messaging.message.id"] == publish["data"]["messaging.message.id"]
    assert processed["data"]["messaging.destination.name"] == "default"
    assert processed["data"]["messaging.message.retry.count"] == 0
    assert processed["data"]["messaging.message.receive.latency"] > 0


@pytest.mark.parametrize(("task", "cause", "stack"), [("die", "signal:KILL", None), ("hang", "timeout", "in hang")])
def test_the_death_of_a_process_is_reported_by_the_scheduler(
    cluster: Cluster, task: str, cause: str, stack: str | None
) -> None:
    """It is in the trace of who has enqueued the job, as the attempt would have been."""
    job = app.tasks[task].enqueue()
    trace = "0af7651916cd43dd8448eb211c80319c"
    meta = {"trace": {"sentry-trace": f"{trace}-b7ad6b7169203331-1"}}
    cluster.query("UPDATE qworker.job SET meta = %s WHERE id = %s", Jsonb(meta), job.id)
    node = cluster.start("--processes", "1", "--kill-grace", "0.5", "--max-crashes", "1", *SOONER, **APP).await_ready()
    ((pid, event),) = until(lambda: sent(cluster.folder, "event"), 45.0, what=node.tail)
    assert pid == node.children("scheduler")[0]
    assert event["exception"]["values"][0]["type"] == "WorkerDied"
    assert event["tags"]["qworker.cause"] == cause
    assert event["contexts"]["trace"]["trace_id"] == trace
    assert event["contexts"]["qworker"]["job"] == job.id
    assert event["fingerprint"] == [app.job(job.id).errors[-1]["fingerprint"]]
    if stack is not None:
        ((_, stacks),) = until(lambda: sent(cluster.folder, "attachment"), 10.0, what=node.tail)
        assert stack in event["extra"]["stacks"]
        assert stack in stacks
    assert node.stop() == 0


def test_a_timeout_says_that_it_is_one(cluster: Cluster) -> None:
    """Sentry shows the message of the exception, which a signal has raised without one."""
    app.tasks["slow"].enqueue()
    node = cluster.start("--burst", "--processes", "1", *SOONER, **APP)
    assert node.wait(60) == 0
    ((_, event),) = sent(cluster.folder, "event")
    (error,) = event["exception"]["values"]
    assert (error["type"], error["value"]) == ("TimeoutInterrupt", "the handler has exceeded its timeout")


def test_the_logger_of_attempts_is_the_one_that_is_ignored() -> None:
    assert ATTEMPTS == log.ATTEMPTS
