"""Traces through the processes of a real node, those that are killed included."""

import json
from pathlib import Path
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.lifecycle.cluster import SOONER, Cluster
from tests.waiting import until

pytest.importorskip("opentelemetry.sdk")

from tests.contrib.tracing.application import app

APP = {"QWORKER_APP": "tests.contrib.tracing.application:app"}


def spans(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return the exported spans, with the process that has exported them."""
    found = [
        json.loads(line) | {"pid": int(path.name.removeprefix("spans-"))}
        for path in folder.glob("spans-*")
        for line in path.read_text().rpartition("\n")[0].splitlines()
    ]
    return [span for span in found if span["name"] == name]


def run_all(cluster: Cluster, *options: str) -> None:
    node = cluster.start("--burst", *SOONER, *options, **APP)
    assert node.wait(60) == 0


@pytest.fixture(autouse=True)
def closed() -> Any:
    yield
    app.close()


def test_spans_of_workers_that_are_replaced_are_exported(cluster: Cluster) -> None:
    """With a batch processor, the spans of the last seconds of a process are lost unless it is flushed."""
    app.tasks["first"].enqueue_many([()] * 6)
    run_all(cluster, "--processes", "2", "--max-jobs-per-worker", "1")
    runs, enqueues, seconds = (spans(cluster.folder, name) for name in ("run first", "enqueue second", "run second"))
    assert len(runs) == len(enqueues) == len(seconds) == 6
    assert len({span["pid"] for span in [*runs, *seconds]}) == 12
    by_id = {span["context"]["span_id"]: span for span in [*runs, *enqueues]}
    for second in seconds:
        enqueue = by_id[second["parent_id"]]
        first = by_id[enqueue["parent_id"]]
        assert first["pid"] == enqueue["pid"] != second["pid"]
        assert first["context"]["trace_id"] == second["context"]["trace_id"]
        assert [link["context"]["span_id"] for link in second["links"]] == [second["parent_id"]]


def test_log_lines_of_a_handler_name_its_span(cluster: Cluster) -> None:
    job = app.tasks["second"].enqueue()
    run_all(cluster, "--processes", "1")
    (span,) = spans(cluster.folder, "run second")
    (line,) = cluster.nodes[0].events(f"said by {job.id}")
    assert (f"0x{line['trace_id']}", f"0x{line['span_id']}") == (
        span["context"]["trace_id"],
        span["context"]["span_id"],
    )


@pytest.mark.parametrize(("task", "cause", "stack"), [("die", "signal:KILL", ""), ("hang", "timeout", "in hang")])
def test_an_attempt_whose_process_was_killed_is_a_span_of_the_scheduler(
    cluster: Cluster, task: str, cause: str, stack: str
) -> None:
    job = app.tasks[task].enqueue()
    node = cluster.start("--processes", "1", "--kill-grace", "0.5", "--max-crashes", "1", *SOONER, **APP).await_ready()
    (span,) = until(lambda: spans(cluster.folder, f"run {task}"), 45.0, what=node.tail)
    assert span["pid"] == node.children("scheduler")[0]
    assert span["status"]["status_code"] == "ERROR"
    assert span["attributes"]["qworker.cause"] == cause
    assert span["attributes"]["messaging.message.id"] == str(job.id)
    assert span["attributes"]["error.type"] == "WorkerDied"
    (event,) = span["events"]
    assert stack in event["attributes"]["exception.stacktrace"]
    assert span["end_time"] >= span["start_time"]
    assert node.stop() == 0


@pytest.mark.parametrize("parent", [True, False], ids=["traced", "a new trace"])
def test_the_attempt_after_a_death_is_linked_to_the_one_that_died(cluster: Cluster, *, parent: bool) -> None:
    """What the dead attempt has exported and logged before belongs to the span that the scheduler exports for it."""
    job = app.tasks["die once"].enqueue()
    if parent:
        carrier = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        cluster.query("UPDATE qworker.job SET meta = %s WHERE id = %s", Jsonb({"trace": carrier}), job.id)
    run_all(cluster, "--processes", "1")
    died, again = sorted(spans(cluster.folder, "run die once"), key=lambda span: span["attributes"]["qworker.attempt"])
    inside = {span["parent_id"] for span in spans(cluster.folder, "inside")}
    assert died["attributes"]["qworker.cause"] == "signal:KILL"
    assert again["status"]["status_code"] == "UNSET"
    assert len({died["pid"], again["pid"]}) == 2
    assert inside == {died["context"]["span_id"], again["context"]["span_id"]}
    assert died["context"] in [link["context"] for link in again["links"]]
    assert (died["context"]["trace_id"] == again["context"]["trace_id"]) is parent
    (line,) = cluster.nodes[0].events(f"attempt 1 of {job.id}")
    assert f"0x{line['span_id']}" == died["context"]["span_id"]
    assert job.refresh().errors[-1]["traceparent"].split("-")[2] == line["span_id"]


def test_jobs_run_although_their_origin_cannot_be_read(cluster: Cluster) -> None:
    job = app.tasks["second"].enqueue()
    unreadable = "tests.contrib.tracing.unreadable:app"
    node = cluster.start("--burst", "--processes", "1", *SOONER, QWORKER_APP=unreadable)
    assert node.wait(60) == 0
    assert node.events("claim.origins_unknown", jobs=1)
    assert job.refresh().state == "completed"
    (span,) = spans(cluster.folder, "run second")
    assert span["parent_id"] is None
