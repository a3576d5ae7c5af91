"""`qworker doctor`: each problem is made on a real server, found and named, and gone when its remedy has run."""

import json
import re
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.json import Jsonb

from qworker.db.connection import connect
from qworker.findings import Finding, Severity
from qworker.migrations import migrate
from qworker.rights import TABLES, Kind, grant
from qworkerd.doctor.catalogue import CHECKS, IDS, select
from qworkerd.doctor.examination import Examination, examine
from qworkerd.doctor.schema import COLLATION_VERSIONS
from qworkerd.embedded import EmbeddedPostgres
from tests.database import Database
from tests.qworkerd.conftest import Command
from tests.waiting import until

PAGE = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text()

Cure = Callable[[Finding], None]


@pytest.fixture(scope="module")
def server(nothing_left: None) -> Iterator[EmbeddedPostgres]:
    """A server of the module's own: its settings are changed."""
    with EmbeddedPostgres({"max_prepared_transactions": 4, "wal_level": "logical"}) as own:
        yield own


@pytest.fixture
def patient(server: EmbeddedPostgres) -> Iterator[Database]:
    """A migrated database, and a server that is configured as at its start afterwards."""
    database = Database.create(server, f"qworker_{secrets.token_hex(4)}")
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        migrate(conn)
        # Databases that tests create and drop force checkpoints, above all before PostgreSQL 15.
        conn.execute("SELECT pg_stat_reset_shared('bgwriter')")
        if conn.info.server_version >= 170000:
            conn.execute("SELECT pg_stat_reset_shared('checkpointer')")
    yield database
    database.drop(server)
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        conn.execute("ALTER SYSTEM RESET ALL")
        conn.execute("ALTER ROLE postgres RESET ALL")
        conn.execute("SELECT pg_reload_conf()")


@pytest.fixture
def cure(patient: Database, command: Command) -> Cure:
    """Run a remedy literally: lines for a shell as commands, all others in one session of psql."""

    def run(finding: Finding) -> None:
        assert finding.remedy
        with psycopg.connect(patient.dsn, autocommit=True) as conn:
            for line in finding.remedy:
                if line.startswith("qworker "):
                    words = re.findall(r"'([^']*)'|(\S+)", line)
                    done = command(*(a or b for a, b in words[1:]), env={"QWORKER_DSN": patient.dsn})
                    assert done.exit_code == 0, done.stderr
                else:
                    conn.execute(line.encode())

    return run


def look(patient: Database, *only: str, **limits: float) -> Examination:
    with connect(patient.dsn, "doctor", statement_timeout=2.0, lock_timeout=0.2) as conn:
        return examine(conn, "qworker", select(only), limits=limits)


def one(patient: Database, check: str, **limits: float) -> Finding:
    """Return the only finding of a check."""
    found = look(patient, check, **limits)
    assert not found.skipped
    assert len(found.findings) == 1, found.findings
    (finding,) = found.findings
    assert finding.check == check
    return finding


def first(patient: Database, check: str, **limits: float) -> Finding:
    """Wait for a finding of a check: some facts come late, or need an age."""
    found: list[Finding] = until(lambda: look(patient, check, **limits).findings, what=check)
    return found[0]


def gone(patient: Database, check: str, **limits: float) -> None:
    until(lambda: not look(patient, check, **limits).findings, what=check)


def job(conn: psycopg.Connection[Any], state: str = "available", age: float = 600, **columns: object) -> int:
    """Insert a job that was enqueued `age` seconds ago."""
    values = {"task": "send", "state": state, **columns}
    names, places = ", ".join(values), ", ".join(f"%({name})s" for name in values)
    row = conn.execute(
        f"INSERT INTO qworker.job ({names}, enqueued_at)"  # noqa: S608
        f" VALUES ({places}, clock_timestamp() - make_interval(secs => {age})) RETURNING id".encode(),
        values,
    ).fetchone()
    assert row is not None
    return int(row[0])


def node(conn: psycopg.Connection[Any], *queues: str, silent: float = 0, **state: object) -> int:
    """Insert a node whose last heartbeat was `silent` seconds ago."""
    row = conn.execute(
        "INSERT INTO qworker.node (name, version, queues, worker_count, lease_seconds, heartbeat_at, state)"
        " VALUES ('web1:17', '0.1', %s, 2, 30, clock_timestamp() - make_interval(secs => %s), %s) RETURNING id",
        [list(queues), silent, Jsonb(state)],
    ).fetchone()
    assert row is not None
    return int(row[0])


# The whole


def test_a_healthy_database_has_no_finding(patient: Database) -> None:
    with patient.connect() as conn:
        node(conn, "default")
        for number in range(50):
            job(conn, age=0, priority=number % 10)
        job(conn, "failed", failed_at="now", errors="[]")
        job(conn, "scheduled", run_at="2999-01-01")
        conn.execute("CREATE EXTENSION amcheck")
    with connect(patient.dsn, "doctor") as conn:
        found = examine(conn, "qworker", select(deep=True))
    assert found.findings == []
    assert found.skipped == []
    assert found.missing_privileges == ""
    assert found.checks + len(found.left_out) == len(IDS)


@pytest.mark.parametrize("time", ["infinity", "-infinity"])
def test_infinite_times_stop_no_check(patient: Database, time: str) -> None:
    """Times that were edited by hand: before PostgreSQL 17, none could be subtracted from the present."""
    ended = "attempt, crashes, node_losses, is_hook, queue, task, args, enqueued_at, claimed_at, finished_at, ring_day"
    with patient.connect() as conn:
        for state in ("available", "failed", "running"):
            job_id = job(conn, state, failed_at=time, claimed_at=time, cancel_requested_at=time, node=7)
            conn.execute("UPDATE qworker.job SET enqueued_at = %s WHERE id = %s", [time, job_id])
            conn.execute(
                f"INSERT INTO qworker.job_history (id, state, priority, {ended}) VALUES (%s, 'completed', 5, 1, 0, 0,"  # noqa: S608
                " false, 'default', 't', '{}', %s, %s, %s, 3)".encode(),
                [job_id, time, time, time],
            )
    with connect(patient.dsn, "doctor") as session:
        found = examine(session, "qworker", select())
    assert found.skipped == []
    checks = {finding.check for finding in found.findings}
    assert ({"unserved-queue", "orphaned-jobs", "history-retention"} <= checks) == (time == "-infinity")


def test_every_check_is_documented_under_its_id() -> None:
    assert re.findall(r"^### (\S+)$", PAGE, re.MULTILINE) == list(IDS)


def test_the_page_names_the_severity_and_the_limits_of_each_check() -> None:
    for check in CHECKS:
        section = PAGE.split(f"### {check.id}\n")[1].split("\n### ")[0]
        assert section.lstrip().startswith(f"**{check.severity}**"), check.id


def test_limits_of_different_checks_have_different_names() -> None:
    seen: dict[str, str] = {}
    for check in CHECKS:
        for name in check.limits:
            assert seen.setdefault(name, check.id) == check.id


# What keeps dead rows


def test_an_old_snapshot_is_found(patient: Database, cure: Cure) -> None:
    conn = patient.connect()
    pid = conn.info.backend_pid
    conn.pgconn.send_query(b"SELECT pg_sleep(60)")
    finding = first(patient, "old-snapshot", snapshot_age=0.1)
    assert f"session {pid} (role postgres" in finding.summary
    assert "pg_sleep(60)" in finding.summary
    cure(finding)
    gone(patient, "old-snapshot", snapshot_age=0.1)


def test_a_session_that_is_idle_in_a_transaction_is_found(patient: Database, cure: Cure) -> None:
    conn = patient.connect(autocommit=False, application_name="shop")
    conn.execute("SELECT 'work'")
    finding = first(patient, "idle-in-transaction", idle_age=0.01)
    assert f"session {conn.info.backend_pid} (role postgres, application 'shop'" in finding.summary
    assert "idle_in_transaction_session_timeout" in finding.advice
    cure(finding)
    gone(patient, "idle-in-transaction", idle_age=0.01)


def test_a_prepared_transaction_is_found(patient: Database, cure: Cure) -> None:
    conn = patient.connect()
    conn.execute("BEGIN")
    conn.execute("CREATE TABLE t ()")
    conn.execute("PREPARE TRANSACTION 'it''s lost'")
    finding = one(patient, "prepared-transaction", prepared_age=0)
    assert finding.remedy == ("ROLLBACK PREPARED 'it''s lost';",)
    cure(finding)
    gone(patient, "prepared-transaction", prepared_age=0)


def test_a_replication_slot_without_consumer_is_found(patient: Database, cure: Cure) -> None:
    conn = patient.connect()
    conn.execute("SELECT pg_create_physical_replication_slot('gone', true)")
    conn.execute("SELECT pg_switch_wal()")
    finding = one(patient, "replication-slot", slot_bytes=1)
    assert "replication slot 'gone' is not in use, and retains " in finding.summary
    cure(finding)
    gone(patient, "replication-slot", slot_bytes=1)


# Schema


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("DROP INDEX qworker.job_ready", "index 'job_ready' of table qworker.job is missing"),
        ("DROP INDEX qworker.job_history_id", "index 'job_history_id' of table qworker.job_history is missing"),
        ("ALTER TABLE qworker.job DROP COLUMN progress CASCADE", "column 'progress' of table qworker.job is missing"),
        ("ALTER TABLE qworker.job DROP CONSTRAINT job_scheduled_has_time", "constraint 'job_scheduled_has_time'"),
        ("ALTER TABLE qworker.unique_key DROP CONSTRAINT unique_key_pkey", "constraint 'unique_key_pkey'"),
        ("ALTER TABLE qworker.job RESET (fillfactor)", "storage parameter fillfactor of table qworker.job is not set"),
        ("ALTER TABLE qworker.job SET (fillfactor = 100)", "fillfactor of table qworker.job is 100, not 70"),
        (
            "DROP INDEX qworker.job_due; CREATE INDEX job_due ON qworker.job (run_at)",
            "index 'job_due' of table qworker.job is on (run_at), not on (run_at WHERE)",
        ),
        ("DROP INDEX qworker.audit_bulk", "index 'audit_bulk' of table qworker.audit is missing"),
        (
            "DROP TRIGGER record_audit_keys ON qworker.audit",
            "trigger 'record_audit_keys' of table qworker.audit is missing",
        ),
        (
            "ALTER TABLE qworker.audit DISABLE TRIGGER record_audit_keys",
            "trigger 'record_audit_keys' of table qworker.audit is disabled",
        ),
    ],
)
def test_a_difference_of_the_schema_is_found(patient: Database, cure: Cure, damage: str, named: str) -> None:
    patient.connect().execute(damage.encode())
    finding = one(patient, "schema-difference")
    assert named in finding.summary
    cure(finding)
    gone(patient, "schema-difference")


@pytest.mark.parametrize("table", ["paused_node", "error_group", "job_log"])
def test_a_table_that_is_missing_is_found_as_one_finding(patient: Database, cure: Cure, table: str) -> None:
    """Not as each of its columns, with lines that alter a table that does not exist."""
    patient.connect().execute(f"DROP TABLE qworker.{table} CASCADE".encode())
    finding = one(patient, "schema-difference")
    assert finding.summary == f"table qworker.{table} is missing: statements that name it fail"
    cure(finding)
    for rest in look(patient, "schema-difference").findings:
        assert rest.about.startswith(f"{table} "), "its indexes and triggers"
        cure(rest)
    gone(patient, "schema-difference")


def test_an_invalid_index_is_found(patient: Database, cure: Cure) -> None:
    conn = patient.connect()
    for _ in range(2):
        job(conn, tags=["twice"])
    with pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute("CREATE UNIQUE INDEX CONCURRENTLY mine ON qworker.job (tags)")
    finding = one(patient, "invalid-index")
    assert finding.remedy == ("DROP INDEX CONCURRENTLY qworker.mine;",)
    cure(finding)
    conn.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'qworker.job_due'::regclass")
    finding = one(patient, "invalid-index")
    assert finding.remedy == ("REINDEX INDEX CONCURRENTLY qworker.job_due;",)
    cure(finding)
    gone(patient, "invalid-index")


@pytest.mark.parametrize(
    "damage",
    ["DROP TABLE qworker.job_history_07", "ALTER TABLE qworker.job_history DETACH PARTITION qworker.job_history_07"],
)
def test_a_missing_day_of_the_history_is_found(patient: Database, cure: Cure, damage: str) -> None:
    patient.connect().execute(damage.encode())
    finding = one(patient, "history-ring")
    assert finding.severity is Severity.STOPS
    assert finding.about == "qworker.job_history_07"
    cure(finding)
    gone(patient, "history-ring")
    assert look(patient, "schema-difference").findings == []


def test_a_sequence_that_is_behind_is_found(patient: Database, cure: Cure) -> None:
    conn = patient.connect()
    job(conn, id=4711)
    finding = one(patient, "sequence-behind")
    assert "sequence job_id_seq is at 0, but 4711 is in use" in finding.summary
    cure(finding)
    gone(patient, "sequence-behind")


def test_a_sequence_near_its_limit_is_found(patient: Database, cure: Cure) -> None:
    conn = patient.connect()
    conn.execute("ALTER SEQUENCE qworker.job_seq AS integer")
    conn.execute("SELECT setval('qworker.job_seq', 2000000000)")
    finding = one(patient, "sequence-limit")
    assert "sequence qworker.job_seq is at 2000000000 of 2147483647" in finding.summary
    cure(finding)
    gone(patient, "sequence-limit")


def test_a_schema_that_is_older_is_found(empty_database: Database, patient: Database) -> None:
    patient.connect().execute(
        "DELETE FROM qworker.migration WHERE number = (SELECT max(number) FROM qworker.migration)"
    )
    finding = one(patient, "schema-version")
    assert "is older than this code, and lacks 00" in finding.summary
    assert finding.remedy == ("qworker db migrate",)


def test_a_changed_collation_is_found(server: EmbeddedPostgres, cure: Cure, patient: Database) -> None:
    name = f"qworker_{secrets.token_hex(4)}"
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        try:
            conn.execute(
                f"CREATE DATABASE {name} TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en' LOCALE 'C' "
                "ENCODING 'UTF8'"
                .encode()
            )  # fmt: skip
        except psycopg.errors.Error as error:
            pytest.skip(f"this server has no ICU: {error}")
    icu = Database(make_conninfo(server.dsn, dbname=name))
    try:
        conn = icu.connect()
        migrate(conn)
        conn.execute("UPDATE pg_database SET datcollversion = '1.0' WHERE datname = current_database()")
        finding = one(icu, "collation")
        assert "was of version 1.0 when its indexes were built" in finding.summary
        for line in finding.remedy:
            conn.execute(line.encode())
        gone(icu, "collation")
    finally:
        icu.drop(server)


def test_nodes_of_different_versions_are_found(patient: Database) -> None:
    conn = patient.connect()
    node(conn, "default")
    node(conn, "default")
    conn.execute("UPDATE qworker.node SET version = '0.2' WHERE id = (SELECT max(id) FROM qworker.node)")
    assert "live nodes have the versions 0.1, 0.2" in one(patient, "mixed-versions").summary


def test_keys_that_were_left_behind_are_found(patient: Database, cure: Cure) -> None:
    conn = patient.connect()
    conn.execute(
        "INSERT INTO qworker.unique_key (task, key, job_id) SELECT 't', k::text, k FROM generate_series(1, 5) k"
    )
    finding = one(patient, "unheld-keys", keys=5)
    cure(finding)
    gone(patient, "unheld-keys", keys=5)


def test_privileges_that_the_role_of_a_node_lacks_are_found(patient: Database, cure: Cure) -> None:
    role = f"worker_{secrets.token_hex(4)}"
    conn = patient.connect()
    conn.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'pw'".encode())
    try:
        session = patient.connect(user=role, password="pw", application_name="qworker scheduler #web1.7.1")
        assert "USAGE on the schema" in one(patient, "missing-privileges").summary
        conn.execute(f"GRANT USAGE ON SCHEMA qworker TO {role}".encode())
        finding = one(patient, "missing-privileges")
        assert f"role '{role}', as which a node is connected, lacks" in finding.summary
        assert finding.remedy == (f"qworker db grant --role {role} --as worker",)
        cure(finding)
        gone(patient, "missing-privileges")
        session.close()
    finally:
        conn.execute(f"DROP OWNED BY {role}".encode())
        conn.execute(f"DROP ROLE {role}".encode())


def test_an_index_that_lacks_rows_is_found(patient: Database, cure: Cure) -> None:
    assert look(patient, "corrupt-index").skipped[0].reason.startswith("the extension amcheck is not installed")
    conn = patient.connect()
    conn.execute("CREATE SCHEMA tools")
    conn.execute("CREATE EXTENSION amcheck SCHEMA tools")
    assert look(patient, "corrupt-index").findings == []
    ready = "UPDATE pg_index SET indisready = {} WHERE indexrelid = 'qworker.job_ready'::regclass"
    conn.execute(ready.format("false").encode())
    with patient.connect() as other:
        job(other)
    conn.execute(ready.format("true").encode())
    finding = one(patient, "corrupt-index")
    assert "job_ready" in finding.summary
    assert finding.remedy == ("REINDEX INDEX CONCURRENTLY qworker.job_ready;",)
    cure(finding)
    gone(patient, "corrupt-index")


# Settings


@pytest.mark.parametrize(
    ("statement", "check", "named"),
    [
        ("ALTER ROLE postgres SET synchronous_commit = off", "asynchronous-commit", "for role 'postgres'"),
        ("ALTER DATABASE {name} SET synchronous_commit = off", "asynchronous-commit", "for database '{name}'"),
        ("ALTER SYSTEM SET synchronous_commit = off", "asynchronous-commit", "for the server"),
        ("ALTER DATABASE {name} SET default_transaction_read_only = on", "read-only", "for database '{name}'"),
        ("ALTER SYSTEM SET default_transaction_read_only = on", "read-only", "for the server"),
        ("ALTER ROLE postgres IN DATABASE {name} SET default_transaction_isolation = 'serializable'",
         "session-settings", "is 'serializable' for role 'postgres' in database '{name}'"),
        ("ALTER DATABASE {name} SET idle_session_timeout = '10min'", "session-settings",
         "idle_session_timeout is 10min"),
        ("ALTER SYSTEM SET full_page_writes = off", "server-durability", "full_page_writes is off"),
        ("ALTER SYSTEM SET autovacuum = off", "autovacuum-off", "autovacuum is off"),
        ("ALTER TABLE qworker.job SET (autovacuum_enabled = false)", "autovacuum-off",
         "disabled for table qworker.job"),
        ("ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "synchronous-standby", "(nobody)"),
    ],
)  # fmt: skip
def test_a_setting_is_found(patient: Database, cure: Cure, statement: str, check: str, named: str) -> None:
    name = conninfo_to_dict(patient.dsn)["dbname"]
    conn = patient.connect()
    conn.execute(statement.format(name=name).encode())
    conn.execute("SELECT pg_reload_conf()")
    finding = first(patient, check)
    assert named.format(name=name) in finding.summary
    cure(finding)
    gone(patient, check)


# Sessions


def test_a_limit_of_connections_is_found(patient: Database, cure: Cure) -> None:
    conn = patient.connect()
    name = conninfo_to_dict(patient.dsn)["dbname"]
    conn.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 2".encode())
    until(lambda: look(patient, "connections").findings)  # statistics of the sessions come late
    finding = one(patient, "connections")
    assert finding.severity is Severity.STOPS
    assert f"database '{name}' allows 2 sessions" in finding.summary
    cure(finding)
    gone(patient, "connections")


def test_connections_that_nodes_will_need_are_found(patient: Database) -> None:
    conn = patient.connect()
    node(conn, "default")
    conn.execute("UPDATE qworker.node SET worker_count = 500")
    finding = one(patient, "connections")
    assert finding.severity is Severity.WARNING
    assert "the live nodes need up to 1002" in finding.summary
    assert finding.remedy[0].startswith("ALTER SYSTEM SET max_connections = ")


def test_a_wait_for_a_lock_is_found(patient: Database, cure: Cure) -> None:
    number = job(patient.connect())
    holder, waiter = patient.connect(autocommit=False, application_name="holder"), patient.connect()
    holder.execute("SELECT FROM qworker.job WHERE id = %s FOR UPDATE", [number])
    waiter.pgconn.send_query(f"UPDATE qworker.job SET priority = 1 WHERE id = {number}".encode())  # noqa: S608
    finding = first(patient, "lock-wait", lock_age=0.1)
    assert f"session {waiter.info.backend_pid} has waited" in finding.summary
    assert f"session {holder.info.backend_pid} (role postgres, application 'holder'" in finding.summary
    cure(finding)
    gone(patient, "lock-wait", lock_age=0.1)


def test_a_notification_queue_that_fills_is_found(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.dsn) as conn:
        if conn.info.server_version < 170_000:
            pytest.skip("before PostgreSQL 17 the queue always has 8 GB")
    with EmbeddedPostgres({"max_notify_queue_pages": 64}) as small:
        database = Database(small.dsn)
        conn, listener = database.connect(), database.connect(autocommit=False)
        migrate(conn)
        listener.execute("LISTEN x")
        listener.commit()
        listener.execute("SELECT 1")
        for _ in range(10):
            conn.execute("SELECT pg_notify('x', repeat(n::text, 3000)) FROM generate_series(1, 9) AS n")
        finding = one(database, "notification-queue")
        assert f"session {listener.info.backend_pid} (role postgres" in finding.summary
        conn.execute(finding.remedy[0].encode())
        conn.execute("NOTIFY x")
        gone(database, "notification-queue")
        database.close()


# Queues


def test_a_queue_without_a_node_is_found(patient: Database) -> None:
    conn = patient.connect()
    node(conn, "default")
    node(conn, "mail", silent=600)
    for _ in range(3):
        job(conn, queue="mail")
        job(conn, queue="default")
    finding = one(patient, "unserved-queue")
    assert finding.summary.startswith("queue 'mail' holds 3 available jobs, the first one has waited for 10m")
    assert finding.remedy == ("qworker --queues mail",)
    conn.execute("INSERT INTO qworker.queue (name, paused_at, paused_by) VALUES ('mail', now(), 'me')")
    gone(patient, "unserved-queue")


def test_a_queue_that_starves_is_found_with_what_occupies_its_workers(patient: Database) -> None:
    conn = patient.connect()
    worker = {"worker": 1, "pid": 7, "job": 1, "task": "report"}
    node(conn, "mail", workers=[worker, worker | {"worker": 2}])
    job(conn, queue="mail")
    finding = one(patient, "starving-queue")
    assert "2 of 2 workers that serve it are busy: 2 run report" in finding.summary
    conn.execute("DELETE FROM qworker.job")
    gone(patient, "starving-queue")


def paused(conn: psycopg.Connection[Any], node: int, ago: str = "1 min") -> None:
    conn.execute(
        "INSERT INTO qworker.paused_node VALUES (%s, now() - %s::interval, 'alice', 'new kernel')", [node, ago]
    )


def test_a_queue_whose_nodes_are_all_paused_is_found(patient: Database, cure: Cure) -> None:
    conn = patient.connect()
    first = node(conn, "mail", "sms", workers=[{"worker": 1, "pid": 7, "job": 1, "task": "report"}])
    other = node(conn, "sms")
    for queue in ("mail", "mail", "sms"):
        job(conn, queue=queue)
    paused(conn, first)
    finding = one(patient, "paused-nodes")
    assert finding.summary.startswith("queue 'mail' holds 2 available jobs, the first one has waited for 10m")
    assert finding.summary.endswith("and all nodes that serve it are paused: web1:17")
    gone(patient, "unserved-queue")
    assert "0 of 2 workers that serve it are busy" in one(patient, "starving-queue").summary, "those of the other node"
    conn.execute("UPDATE qworker.node SET heartbeat_at = now() - interval '1 hour' WHERE id = %s", [other])
    assert [finding.about for finding in look(patient, "paused-nodes").findings] == ["queue mail", "queue sms"]
    cure(finding)
    gone(patient, "paused-nodes")


def test_a_forgotten_pause_of_a_node_is_found(patient: Database, cure: Cure) -> None:
    conn = patient.connect()
    paused(conn, node(conn, "mail"), "5 hours")
    paused(conn, node(conn, "mail", silent=600), "2 days")
    gone(patient, "long-node-pause")
    conn.execute("UPDATE qworker.paused_node SET paused_at = now() - interval '7 hours'")
    finding = one(patient, "long-node-pause")
    assert finding.summary.startswith("node web1:17 has been paused for 7h")
    assert finding.summary.endswith("by alice: new kernel")
    cure(finding)
    gone(patient, "long-node-pause")


def test_a_forgotten_pause_is_found(patient: Database, cure: Cure) -> None:
    patient.connect().execute(
        "INSERT INTO qworker.queue VALUES ('my mail', now() - interval '3 days', 'alice', 'upstream down')"
    )
    finding = one(patient, "long-pause")
    assert "by alice: upstream down" in finding.summary
    cure(finding)
    gone(patient, "long-pause")


def test_jobs_of_an_unknown_task_are_found(patient: Database, cure: Cure) -> None:
    conn = patient.connect()
    ids = [job(conn, "scheduled", task="old.send", run_at="2999-01-01", unknown_task_count=2) for _ in range(3)]
    finding = one(patient, "unknown-task")
    assert "3 jobs of task 'old.send' wait because" in finding.summary
    assert finding.remedy == (f"qworker jobs cancel {' '.join(map(str, ids))}",)
    cure(finding)
    gone(patient, "unknown-task")


def test_due_jobs_that_are_not_promoted_are_found(patient: Database) -> None:
    job(patient.connect(), "scheduled", run_at="2020-01-01")
    finding = one(patient, "not-promoted")
    assert finding.summary.startswith("1 scheduled job became due up to ")
    assert "0 nodes are live" in finding.summary


def test_a_retry_storm_is_found(patient: Database, cure: Cure) -> None:
    conn = patient.connect()
    for _ in range(4):
        job(conn, "scheduled", queue="mail", attempt=1, run_at="2999-01-01")
    finding = one(patient, "retry-storm", retrying=4)
    assert "4 jobs of queue 'mail' wait for another attempt" in finding.summary
    cure(finding)
    gone(patient, "retry-storm", retrying=4)


def test_a_task_that_kills_workers_is_found(patient: Database, cure: Cure) -> None:
    conn = patient.connect()
    errors = Jsonb([{"cause": "signal:SEGV"}])
    job(conn, "failed", task="resize", crashes=3, failed_at="now", errors=errors)
    finding = one(patient, "crashing-task")
    assert "1 job of task 'resize' failed" in finding.summary
    assert "signal:SEGV" in finding.summary
    cure(finding)
    gone(patient, "crashing-task")


def test_a_flood_of_failures_is_found(patient: Database, cure: Cure) -> None:
    conn = patient.connect()
    for _ in range(5):
        job(conn, "failed", task="send mail", failed_at="now")
    finding = one(patient, "many-failures", failures=5)
    assert "5 jobs of task 'send mail' failed with no attempt left in the last hour" in finding.summary
    assert "jobs list state:failed 'task:send mail'" in finding.advice
    conn.execute(
        "INSERT INTO qworker.error_group (fingerprint, count, first_seen, last_seen, first_job, task, type, message,"
        " queues, samples) VALUES (-2, 4, now(), now(), 1, 'send mail', 'SMTPError', 'greylisted', '{}', '{}'),"
        " (3, 1, now(), now(), 1, 'send mail', 'KeyError', NULL, '{}', '{}')"
    )
    conn.execute("UPDATE qworker.job SET fingerprint = CASE WHEN id % 5 > 0 THEN -2 ELSE 3 END")
    finding = one(patient, "many-failures", failures=5)
    assert finding.summary.endswith("; 4 jobs with SMTPError: greylisted")
    assert "qworker errors show fffffffffffffffe" in finding.advice
    cure(finding)
    gone(patient, "many-failures", failures=5)


def test_a_cancellation_that_is_ignored_is_found(patient: Database) -> None:
    conn = patient.connect()
    number = job(conn, "running", token=1, claimed_at="now", cancel_requested_at="2020-01-01")
    own = node(conn, "default", workers=[{"pid": 4242, "job": number, "task": "send"}])
    conn.execute("UPDATE qworker.job SET node = %s", [own])
    finding = one(patient, "ignored-cancellation")
    assert f"job {number} of task 'send' still runs on web1:17" in finding.summary
    assert finding.remedy == ("kill -KILL 4242",)


# Nodes


def test_running_jobs_of_no_node_are_found(patient: Database) -> None:
    number = job(patient.connect(), "running", token=1, node=99, claimed_at="2020-01-01")
    finding = one(patient, "orphaned-jobs")
    assert f"on node 99, which is not registered: {number}" in finding.summary


def test_a_silent_node_is_found(patient: Database) -> None:
    node(patient.connect(), "default", silent=600)
    finding = one(patient, "silent-node")
    assert "node web1:17 has been silent for 10m; its lease has expired" in finding.summary
    assert "no other node lives" in finding.advice


def test_nodes_that_are_restarted_all_the_time_are_found(patient: Database) -> None:
    conn = patient.connect()
    node(conn, "default")
    conn.execute("UPDATE qworker.node SET started_at = now() - interval '1 hour'")
    for _ in range(9):
        conn.execute("DELETE FROM qworker.node WHERE id = %s", [node(conn, "default")])
    finding = one(patient, "node-churn")
    assert "nodes have registered 9 times in ten minutes, but 1 node exists" in finding.summary


def test_a_node_of_many_that_is_restarted_all_the_time_is_found(patient: Database) -> None:
    conn = patient.connect()
    for _ in range(5):
        node(conn, "default")
    source = (
        "INSERT INTO qworker.stat_source (id, seq, version, host)"
        " SELECT n, 1, '1', %s FROM generate_series(%s::int, %s::int) AS n"
    )
    conn.execute(source, ["web2", 1, 6])
    conn.execute(source, ["web1", 7, 20])
    conn.execute(source, ["web3", 50, 99])
    conn.execute("UPDATE qworker.stat_source SET started_at = '2020-01-01' WHERE host = 'web3'")
    finding = one(patient, "node-churn")
    assert finding.about == "host web2", "five nodes of web1 may have been deployed twice"
    assert "registered 6 times in ten minutes on host 'web2', but 0 nodes exist" in finding.summary


def test_a_schedule_that_does_not_tick_is_found(patient: Database, cure: Cure) -> None:
    patient.connect().execute(
        "INSERT INTO qworker.cron (name, task, expression, timezone, created_at, declared_by)"
        " VALUES ('it''s daily', 'report', '0 9 * * *', 'UTC', now() - interval '3 days', 1)"
    )
    finding = one(patient, "schedule-overdue")
    assert "and no live node declares it" in finding.summary
    cure(finding)
    gone(patient, "schedule-overdue")


def test_a_time_zone_that_is_unknown_here_is_found(patient: Database) -> None:
    patient.connect().execute(
        "INSERT INTO qworker.cron (name, task, expression, timezone, declared_by)"
        " VALUES ('daily', 'report', '0 9 * * *', 'Mars/Olympus', 1)"
    )
    assert "'Mars/Olympus' of schedule 'daily'" in one(patient, "schedule-timezone").summary
    assert look(patient, "schedule-overdue").findings == []


def test_a_clock_that_differs_is_found(patient: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr("qworkerd.doctor.examination.time", lambda: real() - 90)
    assert "the clock of this host is 1m30s behind that of the database" in one(patient, "clock-skew").summary


def test_a_clock_of_a_node_that_differs_is_found(patient: Database) -> None:
    conn = patient.connect()
    node(conn, "default", clock={"ahead": -90.5, "uncertain": 0.001})
    finding = one(patient, "clock-skew")
    assert finding.about == "host web1"
    assert "the clock of host 'web1' (node web1:17) is 1m30s behind that of the database (± 1ms)" in finding.summary
    conn.execute("DELETE FROM qworker.node")
    unusable: list[object] = [{"ahead": 4, "uncertain": 3}, {"ahead": "x", "uncertain": 0}, {"ahead": 9}, [], "x", None]
    for clock in unusable:
        node(conn, "default", clock=clock)
    assert look(patient, "clock-skew").findings == []
    node(conn, "default", clock={"ahead": json.loads("1" + "0" * 500), "uncertain": 0})
    assert "ahead of" in one(patient, "clock-skew").summary


def test_old_time_zones_of_a_node_are_found(patient: Database) -> None:
    conn = patient.connect()
    ((year,),) = conn.execute("SELECT extract(year FROM clock_timestamp())::int").fetchall()
    node(conn, "default", cron=["daily"], timezones=f"{year}b")
    node(conn, "default", cron=["daily"], timezones=f"{year}a")
    node(conn, "default", cron=[], timezones="1999a")
    node(conn, "default", cron=["daily"], timezones="forged")
    schedule = (
        "INSERT INTO qworker.cron (name, task, expression, timezone, declared_by) VALUES (%s, 'r', '@daily', %s, 1)"
    )
    conn.execute(schedule, ["daily", "UTC"])
    assert look(patient, "timezone-data").findings == []
    conn.execute(schedule, ["here", "Europe/Berlin"])
    finding = one(patient, "timezone-data")
    assert f"by time zones of version {year}a, other nodes have {year}b" in finding.summary
    conn.execute("DELETE FROM qworker.node")
    node(conn, "default", cron=["daily"], timezones=f"{year - 3}c")
    assert f"by time zones of version {year - 3}c: " in one(patient, "timezone-data").summary


# Vacuum and storage


def test_dead_rows_that_vacuum_leaves_are_found(patient: Database, cure: Cure) -> None:
    # An idle session of a server before PostgreSQL 15 keeps what it has counted until it ends.
    with psycopg.connect(patient.dsn, autocommit=True) as conn:
        conn.execute("INSERT INTO qworker.job (task) SELECT 't' FROM generate_series(1, 2000)")
        conn.execute("DELETE FROM qworker.job")
    limits = {"dead_rows": 1000.0, "vacuum_age": 0.0}
    finding = first(patient, "dead-rows", **limits)
    assert "table qworker.job has 2,000 dead rows beside 0 live ones" in finding.summary
    cure(finding)
    gone(patient, "dead-rows", **limits)


def test_a_table_that_was_never_analyzed_is_found(patient: Database, cure: Cure) -> None:
    conn = patient.connect()
    conn.execute(
        "INSERT INTO qworker.job_history (id, enqueued_at, finished_at, state, attempt, ring_day, priority, crashes,"
        " node_losses, is_hook, queue, task, args) VALUES (1, now(), now(), 'completed', 1, 3, 5, 0, 0, false, "
        "'q', 't', '{}')"
    )
    found = look(patient, "not-analyzed", analyzed_bytes=1).findings
    finding = next(finding for finding in found if finding.about == "job_history")
    cure(finding)
    left = look(patient, "not-analyzed", analyzed_bytes=1).findings
    assert "job_history" not in {finding.about for finding in left}


def test_bloat_is_found(patient: Database, cure: Cure) -> None:
    conn = patient.connect()
    conn.execute("INSERT INTO qworker.job (task) SELECT 't' FROM generate_series(1, 20000)")
    conn.execute("DELETE FROM qworker.job WHERE id > 10")
    conn.execute("VACUUM ANALYZE qworker.job")
    table, index = (
        one(patient, "table-bloat", bloat_bytes=100_000),
        look(patient, "index-bloat", index_bytes=100_000).findings,
    )
    assert table.about == "job"
    assert {finding.about for finding in index} == {"job_pkey", "job_ready"}
    for finding in (table, *index):
        cure(finding)
    gone(patient, "table-bloat", bloat_bytes=100_000)
    gone(patient, "index-bloat", index_bytes=100_000)


def test_a_day_that_retention_could_not_truncate_is_found(patient: Database, cure: Cure) -> None:
    conn = patient.connect()
    conn.execute(
        "INSERT INTO qworker.job_history (id, enqueued_at, finished_at, state, attempt, ring_day, priority, crashes,"
        " node_losses, is_hook, queue, task, args)"
        " VALUES (1, now(), now() - interval '40 days', 'completed', 1, 3, 5, 0, 0, false, 'q', 't', '{}')"
    )
    finding = one(patient, "history-retention")
    assert "partition qworker.job_history_03 holds jobs that ended 40 days ago" in finding.summary
    cure(finding)
    gone(patient, "history-retention")


def test_a_table_that_must_be_frozen_is_found() -> None:
    settings: dict[str, str | int] = {
        "autovacuum_freeze_max_age": 100_000, "autovacuum_naptime": "1d", "synchronous_commit": "off", "fsync": "off",
    }  # fmt: skip
    with EmbeddedPostgres(settings) as old:
        database = Database(old.dsn)
        conn = database.connect()
        migrate(conn)
        assert look(database, "wraparound").findings == []
        conn.execute("DO $$ BEGIN FOR i IN 1..151000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$")
        found = look(database, "wraparound").findings
        assert found
        assert found[0].severity is Severity.STOPS
        assert "was frozen 15" in found[0].summary
        conn.execute(found[0].remedy[0].encode())
        gone(database, "wraparound")
        database.close()


def test_a_write_ahead_log_that_grows_is_found(patient: Database, server: EmbeddedPostgres) -> None:
    conn = patient.connect()
    conn.execute("ALTER SYSTEM SET max_wal_size = '32MB'")
    conn.execute("SELECT pg_reload_conf()")
    conn.execute("SELECT pg_create_physical_replication_slot('slow', true)")
    for number in range(8):
        conn.execute(f"CREATE TABLE t{number} ()".encode())
        conn.execute("SELECT pg_switch_wal()")
    finding = one(patient, "wal-size")
    assert re.search(r"the write-ahead log has 1\d\d MiB, but max_wal_size is 32 MiB", finding.summary)
    conn.execute("SELECT pg_drop_replication_slot('slow')")
    conn.execute("CHECKPOINT")
    gone(patient, "wal-size")


def test_a_disk_that_is_nearly_full_is_found(patient: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qworkerd.doctor.storage.statvfs", lambda _: disk(100, 4))
    found = one(patient, "disk-full").summary
    assert re.search(r"the disk of /\S+ is 96% full, 4.0 GiB are free; this database has [\d.]+ MiB$", found)


def disk(blocks: int, free: int) -> SimpleNamespace:
    """A disk whose blocks have 1 GiB."""
    return SimpleNamespace(f_blocks=blocks, f_bavail=free, f_frsize=1024**3)


def test_a_disk_that_will_be_full_is_found(patient: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qworkerd.doctor.storage.statvfs", lambda _: disk(100, 40))
    conn = patient.connect()
    conn.execute(
        "INSERT INTO qworker.size SELECT current_date - age, clock_timestamp() - age * interval '1 day',"
        " pg_database_size(current_database()) - age * 4 * 1024::bigint ^ 3, 0 FROM unnest(ARRAY[0, 5, 6, 30]) AS age"
    )
    found = one(patient, "disk-full").summary
    assert "is 60% full, 40 GiB are free; this database has " in found
    assert "; in the last 6d it has grown by 4.0 GiB a day, of which the tables of qworker are " in found
    assert found.endswith(", so the disk is full in 10d")
    conn.execute("DELETE FROM qworker.size WHERE at < clock_timestamp() - interval '20 hours'")
    assert look(patient, "disk-full").findings == [], "two measurements of one day say nothing about growth"


def test_a_disk_that_cannot_be_seen_is_not_looked_at(patient: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qworkerd.doctor.storage.LOCAL", ())
    (skipped,) = look(patient, "disk-full").skipped
    assert "the server runs on another host" in skipped.reason


def test_a_job_that_runs_much_longer_than_others_of_its_task_is_found(patient: Database, cure: Cure) -> None:
    conn = patient.connect()
    own = node(conn, "default")
    number = job(conn, "running", token=1, node=own, claimed_at="2020-01-01", task="report")
    assert look(patient, "long-running-job").findings == []
    conn.execute("INSERT INTO qworker.series (queue, task) VALUES ('default', 'report')")
    conn.execute(
        "INSERT INTO qworker.stat (width, at, series, succeeded, run_histogram)"
        " SELECT 10, now() - interval '1 day', id, 200, qworker.histogram('{56,60}', '{199,1}') FROM qworker.series"
    )
    finding = one(patient, "long-running-job")
    assert f"job {number} of task 'report' has been running for " in finding.summary
    assert "99 % of 200 runs took no longer than 1.2s" in finding.summary
    assert finding.remedy == (f"qworker jobs cancel {number}",)
    cure(finding)
    gone(patient, "long-running-job")


def test_forced_checkpoints_are_found(patient: Database, cure: Cure) -> None:
    conn = patient.connect()
    view = "checkpointer" if conn.info.server_version >= 170000 else "bgwriter"
    conn.execute("SELECT pg_stat_reset_shared(%s)", [view])
    for _ in range(3):
        conn.execute("CREATE TABLE IF NOT EXISTS t ()")
        conn.execute("CHECKPOINT")
    finding = first(patient, "checkpoints", requested=1)
    # Before PostgreSQL 15 the statistics are reset and collected later.
    assert re.search(r"\b(3|\d\d+) checkpoints in ", finding.summary)
    cure(finding)
    gone(patient, "checkpoints", requested=1)


# Rights, limits, and the command


@pytest.fixture
def viewer(patient: Database, server: EmbeddedPostgres) -> Iterator[Database]:
    name = f"viewer_{secrets.token_hex(4)}"
    with psycopg.connect(patient.dsn, autocommit=True) as conn:
        conn.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'pw'".encode())
        grant(conn, name, [Kind.VIEWER])
    yield Database(make_conninfo(patient.dsn, user=name, password="pw"))
    with psycopg.connect(patient.dsn, autocommit=True) as conn:
        conn.execute(f"DROP OWNED BY {name}".encode())
        conn.execute(f"DROP ROLE {name}".encode())


def test_a_viewer_makes_all_other_checks_and_learns_what_it_does_not_see(viewer: Database, patient: Database) -> None:
    patient.connect().execute("DROP INDEX qworker.job_due")
    found = look(viewer)
    assert [finding.check for finding in found.findings] == ["schema-difference"]
    assert "lacks pg_monitor" in found.missing_privileges
    skipped = {skipped.check for skipped in found.skipped}
    assert skipped == {check.id for check in CHECKS if check.sessions or check.monitor}


def test_a_role_without_privileges_makes_the_checks_of_the_server(viewer: Database, patient: Database) -> None:
    role = conninfo_to_dict(viewer.dsn)["user"]
    patient.connect().execute(f"REVOKE SELECT ON ALL TABLES IN SCHEMA qworker FROM {role}".encode())  # noqa: S608
    found = look(viewer)
    reasons = {skipped.check: skipped.reason for skipped in found.skipped}
    assert reasons["unserved-queue"].startswith("permission denied for table ")
    assert "wraparound" not in reasons
    blind = found.findings[0]
    assert (blind.check, blind.severity, blind.about) == ("missing-privileges", Severity.WARNING, f"role {role}")
    assert set(blind.evidence["checks"]) >= {"unserved-queue", "silent-node", "orphaned-jobs"}
    assert blind.remedy == (f"qworker db grant --role {role} --as viewer",)


def test_a_role_that_sees_nothing_does_not_learn_that_all_is_well(
    viewer: Database, patient: Database, command: Command, cure: Cure
) -> None:
    """A monitor with the wrong role must not be green, with whatever is wrong; the remedy is said once, and first."""
    role = conninfo_to_dict(viewer.dsn)["user"]
    conn = patient.connect()
    conn.execute(f"REVOKE USAGE ON SCHEMA qworker FROM {role}".encode())
    env = {"QWORKER_DSN": viewer.dsn}
    shown = command("doctor", env=env)
    assert shown.exit_code == 1
    assert shown.stdout.count("permission denied") == 1
    assert f"qworker db grant --role {role} --as viewer" in shown.stdout
    found = json.loads(command("doctor", "--json", env=env).stdout)
    assert found["findings"][0]["check"] == "missing-privileges"
    assert {skipped["check"] for skipped in found["not_looked_at"]} >= set(found["findings"][0]["evidence"]["checks"])
    assert command("doctor", "--only", "unserved-queue", env=env).exit_code == 1
    blind, *_ = look(viewer).findings
    cure(blind)
    assert look(viewer).findings == []


def test_a_check_that_takes_too_long_is_not_looked_at(patient: Database) -> None:
    job(patient.connect())
    with psycopg.connect(patient.dsn) as other:
        other.execute("LOCK TABLE qworker.job IN ACCESS EXCLUSIVE MODE")
        found = look(patient)
    reasons = {skipped.check: skipped.reason for skipped in found.skipped}
    assert reasons["unserved-queue"] == "a table was locked"
    assert "invalid-index" not in reasons


@pytest.mark.parametrize("table", [*(name for name in TABLES if name != "jobs"), "job_history_07"])
def test_a_lock_on_any_table_keeps_no_other_check_from_being_made(patient: Database, table: str) -> None:
    with psycopg.connect(patient.dsn) as other:
        other.execute(f"LOCK TABLE qworker.{table} IN ACCESS EXCLUSIVE MODE".encode())
        began = time.monotonic()
        found = look(patient)
    assert found.findings == []
    assert {skipped.reason for skipped in found.skipped} <= {"a table was locked"}
    assert "wraparound" not in {skipped.check for skipped in found.skipped}
    assert time.monotonic() - began < 10
    known = {"job": "unserved-queue", "queue": "long-pause", "node": "silent-node", "cron": "schedule-overdue",
             "migration": "schema-version", "unique_key": "unheld-keys", "job_history_07": "history-retention",
             "error_group": "many-failures", "stat": "long-running-job", "size": "disk-full"}  # fmt: skip
    if table in known:
        assert known[table] in {skipped.check for skipped in found.skipped}


def test_the_command_ends_while_the_table_of_migrations_is_locked(patient: Database, command: Command) -> None:
    with psycopg.connect(patient.dsn) as other:
        other.execute("LOCK TABLE qworker.migration IN ACCESS EXCLUSIVE MODE")
        done = command("doctor", env={"QWORKER_DSN": patient.dsn})
    assert done.exit_code == 0, done.stderr
    assert "schema-version: a table was locked" in done.stdout


def test_the_checks_write_nothing(patient: Database) -> None:
    with connect(patient.dsn, "doctor") as conn:
        examine(conn, "qworker", CHECKS)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), conn.transaction():
            conn.execute("DELETE FROM qworker.job")


def test_exit_codes_and_json(command: Command, patient: Database) -> None:
    env = {"QWORKER_DSN": patient.dsn}
    fine = command("doctor", env=env)
    conn = patient.connect()
    made = len(IDS) - 1 - (conn.info.server_version < COLLATION_VERSIONS)  # all but the deep one
    assert fine.exit_code == 0
    summary, *left_out = fine.stdout.splitlines()
    assert summary == f"nothing found by {made} of {len(IDS)} checks"
    assert left_out[-1] == "left out  corrupt-index: needs --deep, as it reads all tables"
    assert [line.split()[2] for line in left_out[:-1]] == ["collation:"] * (len(IDS) - 1 - made)
    conn.execute("ALTER TABLE qworker.job RESET (fillfactor)")
    assert command("doctor", env=env).exit_code == 1
    job(conn, queue="m\x1b[2Jail")
    shown = command("doctor", "--only", "unserved-queue", env=env)
    assert shown.exit_code == 2
    assert "\x1b[2J" not in shown.stdout
    assert "qworker doctor --explain unserved-queue" in shown.stdout
    assert shown.stdout.endswith("1 finding by 1 check\n")
    found = json.loads(command("doctor", "--json", env=env).stdout)
    assert [finding["severity"] for finding in found["findings"]] == ["stops", "warning"]
    assert found["findings"][1]["remedy"] == ["ALTER TABLE qworker.job SET (fillfactor = 70);"]
    assert found["checks"] == made
    assert [left["check"] for left in found["left_out"]][-1] == "corrupt-index"
    assert command("doctor", "--list", env=env).stdout.split() == list(IDS)


def test_the_command_explains_each_check_without_a_database(command: Command) -> None:
    for name in (*IDS, "unreachable"):
        done = command("doctor", "--explain", name, env={"QWORKER_DSN": "postgresql://nowhere:1/x"})
        assert done.exit_code == 0
        assert len(done.stdout) > 30
        assert not re.search(r"\*\*|\]\(|^#", done.stdout, re.MULTILINE), "marks of Markdown"
        assert all(len(line) <= 80 for line in done.stdout.splitlines())
    wrong = command("doctor", "--explain", "unserved-que")
    assert wrong.exit_code == 2
    assert "check 'unserved-que' not found; did you mean 'unserved-queue'?" in wrong.stderr
    assert "`qworker doctor --list` lists all" in wrong.stderr


def test_a_row_that_cannot_be_explained_hides_no_other(patient: Database) -> None:
    conn = patient.connect()
    for name, tick in (("far", "294276-01-01"), ("late", "2020-01-01")):
        conn.execute(
            "INSERT INTO qworker.cron (name, task, expression, timezone, declared_by, last_tick)"
            " VALUES (%s, 't', '* * * * *', 'UTC', 1, %s)",
            [name, tick],
        )
    with connect(patient.dsn, "doctor") as database:
        result = examine(database, "qworker", select(("schedule-overdue", "schedule-timezone")))
    assert [finding.about for finding in result.findings] == ["schedule late"]
    (skipped,) = result.skipped
    assert skipped.check == "schedule-overdue"
    assert skipped.reason.startswith("a row has values that cannot be explained (ValueError: year ")
