"""A database that refuses: one job that nothing can be done with, or everything for a while. Nothing is lost."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
import pytest

from qworker import Job, JobState
from tests.lifecycle import handlers
from tests.lifecycle.application import answer, quick
from tests.lifecycle.cluster import Cluster, reached
from tests.lifecycle.node import Node
from tests.waiting import until

#: Raised when a job is moved to the history.
TRIGGER = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; END $$;
CREATE TRIGGER refuse BEFORE {event} ON qworker.job FOR EACH ROW {when} EXECUTE FUNCTION refuse();
"""
RELENT = "DROP FUNCTION refuse() CASCADE"
HANG_UP = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


@dataclass(frozen=True)
class Refusal:
    """How the database comes to refuse all writes, how that ends, and what it says."""

    begin: tuple[str, ...]
    end: tuple[str, ...]
    message: str
    #: The event that says it. A session that takes no writes is left at once, and counts as disconnected.
    event: str = "acknowledge.error"


def trigger(body: str, event: str = "DELETE", when: str = "") -> str:
    return TRIGGER.format(body=body, event=event, when=when)


READ_ONLY = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %%I %s', current_database()); END $$"


def failing(message: str, code: str) -> Refusal:
    """Refuse by a trigger on every write to jobs."""
    return Refusal((trigger(f"RAISE '{message}' USING ERRCODE = '{code}'", "DELETE OR UPDATE"),), (RELENT,), message)


EVERYTHING = {
    "read-only": Refusal(
        (READ_ONLY % "SET default_transaction_read_only = on", HANG_UP),
        ("SET default_transaction_read_only = off", READ_ONLY % "RESET default_transaction_read_only"),
        "the session is read-only",
        "database.disconnected",
    ),
    "disk full": failing("could not extend file: No space left on device", "disk_full"),
    "permission denied": failing("permission denied for table job", "insufficient_privilege"),
    "takes too long": failing("canceling statement due to statement timeout", "query_canceled"),
}


@pytest.fixture
def node(cluster: Cluster) -> Node:
    return cluster.start("--processes", "2").await_ready()


@contextmanager
def refused(cluster: Cluster, refusal: Refusal) -> Iterator[None]:
    for statement in refusal.begin:
        cluster.query(statement)
    try:
        yield
    finally:
        for statement in refusal.end:
            cluster.query(statement)


@pytest.mark.parametrize("kind", EVERYTHING)
def test_what_has_ended_while_the_database_refuses_is_written_when_it_takes_it(
    node: Node, cluster: Cluster, kind: str
) -> None:
    running = [handlers.held.enqueue(str(cluster.folder / "go")) for _ in range(2)]
    cluster.await_notes("start", 2)
    later = [answer.enqueue(number) for number in range(5)]
    refusal = EVERYTHING[kind]
    with refused(cluster, refusal):
        (cluster.folder / "go").touch()
        until(
            lambda: any(refusal.message in event["error"] for event in node.events(refusal.event)),
            10,
            what=node.tail,
        )
        cluster.await_notes("end", 2)
        before = len(node.events())
        node.await_event(refusal.event, count=len(node.events(refusal.event)) + 3)
        assert len(node.events()) - before < 100, "it is said again and again, but not without end"
    for job in running:
        done = reached(job)
        assert (done.state, done.attempt) == (JobState.COMPLETED, 1)
    assert [reached(job).result for job in later] == [0, 1, 2, 3, 4]
    assert len(cluster.notes("start")) == 2
    assert node.events("child.died") == []


@pytest.fixture
def others(cluster: Cluster) -> Iterator[None]:
    """What these tests add to the schema is gone after them, also when they fail."""
    yield
    cluster.query("DROP FUNCTION IF EXISTS refuse() CASCADE")
    cluster.query("DROP TABLE IF EXISTS note")


@pytest.mark.usefixtures("others")
def test_a_job_whose_end_a_trigger_refuses_holds_up_no_other(node: Node, cluster: Cluster) -> None:
    with cluster.connect() as conn, conn.transaction():
        ids = quick.using(conn).enqueue_many([()] * 50, ids=True)
        conn.execute(trigger("RAISE 'not this one'", "DELETE", f"WHEN (OLD.id = {ids[20]})").encode())
    until(lambda: cluster.value("SELECT count(*) FROM qworker.job_history") == 49, 15, what=node.tail)
    assert node.await_event("acknowledge.error", jobs=1)["error"].startswith("not this one")
    cluster.query(RELENT)
    until(lambda: cluster.value("SELECT count(*) FROM qworker.job_history") == 50, 15, what=node.tail)
    assert len(cluster.notes("start")) == 50
    assert node.events("child.died") == []


@pytest.mark.usefixtures("others")
def test_a_foreign_key_that_somebody_has_put_on_our_table_holds_up_one_job(node: Node, cluster: Cluster) -> None:
    with cluster.connect() as conn, conn.transaction():
        jobs = [quick.using(conn).enqueue() for _ in range(10)]
        conn.execute("CREATE TABLE note (job bigint REFERENCES qworker.job)")
        conn.execute("INSERT INTO note VALUES (%s)", (jobs[3].id,))
    until(lambda: cluster.value("SELECT count(*) FROM qworker.job_history") == 9, 15, what=node.tail)
    assert jobs[3].refresh().state is JobState.RUNNING
    cluster.query("DROP TABLE note")
    assert reached(jobs[3]).attempt == 1
    assert len(cluster.notes("start", job=jobs[3].id)) == 1


EDIT = "UPDATE qworker.job SET {}, state = 'available', run_at = NULL WHERE id = %s"
#: What the table itself does not take.
REFUSED = {"args", "args that are text", "task", "overrides", "tags", "expires"}
NONSENSE = {
    "args": "args = '[1, 2]'",
    "args that are text": "args = '\"text\"'",
    "args of another signature": 'args = \'{"path": 5, "strange": null}\'',
    "task": "task = ''",
    "overrides": "overrides = '[\"nonsense\"]'",
    "timeout": 'overrides = \'{"timeout": "soon", "retry": 7}\'',
    "errors": 'errors = \'{"no": "list"}\'',
    "attempt": "attempt = -5",
    "attempts without end": "attempt = 2147483647",
    "crashes": "crashes = 32767, node_losses = 32767",
    "hook": "is_hook = true",
    "tags": "tags = ARRAY[NULL, '']",
    "unknown_task_count": "unknown_task_count = 32767",
    "enqueued in the future": "enqueued_at = 'infinity'",
    "expires": "expires_at = '-infinity'",
}


@pytest.fixture(scope="module")
def nonsense(module_cluster: Cluster) -> dict[str, Job]:
    """Jobs that somebody has edited, each beside two that nobody has."""
    jobs, refused = {}, set()
    for name, change in NONSENSE.items():
        jobs[name] = quick.options(delay=3600).enqueue()
        try:
            module_cluster.query(EDIT.format(change), jobs[name].id)
        except psycopg.errors.CheckViolation:
            refused.add(name)
            module_cluster.query(EDIT.format("task = task"), jobs[name].id)
    assert refused == REFUSED
    module_cluster.start("--processes", "1").await_ready()
    return jobs


@pytest.mark.parametrize("name", NONSENSE)
def test_a_row_that_somebody_has_edited_to_nonsense_breaks_nothing(
    module_cluster: Cluster, nonsense: dict[str, Job], name: str
) -> None:
    (node,) = module_cluster.nodes
    until(lambda: nonsense[name].refresh().state in
          {JobState.COMPLETED, JobState.FAILED, JobState.SCHEDULED, JobState.CANCELLED, JobState.DISCARDED},
          what=lambda: f"{nonsense[name].refresh()}\n{node.tail()}")  # fmt: skip
    assert reached(quick.enqueue()).state is JobState.COMPLETED
    assert node.events("child.died") == []
    assert node.events("process.died") == []
