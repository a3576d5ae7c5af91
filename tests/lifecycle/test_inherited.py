"""Connections that are opened while the application is imported: no two processes ever use one of them."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import psycopg
import pytest

from qworker import Job, JobState
from tests.lifecycle.application import answer, app
from tests.lifecycle.cluster import Cluster, reached
from tests.lifecycle.node import Node
from tests.waiting import until

HEAD = """
import os
from qworker import App, Retry

app = App()
dsn = os.environ["QWORKER_DSN"] + " application_name=imported"
"""
#: The line of each module that connects.
LEFT_OPEN = {
    "psycopg": "import psycopg; conn = psycopg.connect(dsn)",
    "psycopg2": "import psycopg2; conn = psycopg2.connect(dsn)",
    "psycopg_pool": "import psycopg_pool; conn = psycopg_pool.ConnectionPool(dsn, min_size=1, open=True)",
}
#: Asks the server to say a number: on a shared session it says somebody else's.
ECHO = """
@app.task(name="answer", retry=False)
def answer(value):
    return conn.execute("SELECT %s::int", [value]).fetchone()[0]
"""
SQLALCHEMY = """
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL, create_engine, literal, select, Column, Integer, MetaData, Table, text

given = conninfo_to_dict(dsn)
engine = create_engine(
    URL.create(
        "postgresql+DRIVER", given["user"], given.get("password"), given["host"], int(given["port"]), given["dbname"],
        {"application_name": "imported"},
    ),
    pool_size=1,
)
metadata = MetaData()
Table("thing", metadata, Column("id", Integer))
metadata.create_all(engine)

memory = create_engine("sqlite://")
with memory.begin() as conn:
    conn.execute(text("CREATE TABLE known (n int)"))

@app.task(name="answer", retry=False)
def answer(value):
    with memory.begin() as conn:
        conn.execute(text("SELECT n FROM known"))
    with engine.begin() as conn:
        return conn.scalar(select(literal(value)))
"""
DJANGO = """
import django
from django.conf import settings
from psycopg.conninfo import conninfo_to_dict

given = conninfo_to_dict(dsn)
# Django has a pool since 5.1.
POOL = {"pool": {"min_size": 1, "max_size": 2}} if django.VERSION >= (5, 1) else {}
settings.configure(
    DATABASES={
        alias: {
            "ENGINE": "django.db.backends.postgresql", "NAME": given["dbname"], "USER": given["user"],
            "PASSWORD": given.get("password"), "HOST": given["host"], "PORT": given["port"],
            "OPTIONS": {"application_name": "imported", **options}, "CONN_MAX_AGE": 0 if options else None,
        }
        for alias, options in (("default", {}), ("pooled", POOL))
    },
    INSTALLED_APPS=["shopping.apps.Shopping"],
)
django.setup()

from django.db import connections

@app.task(name="answer", retry=False)
def answer(value):
    with connections[("default", "pooled")[value % 2]].cursor() as cursor:
        cursor.execute("SELECT %s::int", [value])
        return cursor.fetchone()[0]
"""
READY = """
from django.apps import AppConfig

class Shopping(AppConfig):
    name = "shopping"

    def ready(self):
        from django.db import connections
        for connection in connections.all():
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
"""
FRAMEWORKS = {
    "Django": DJANGO,
    "SQLAlchemy with psycopg": SQLALCHEMY.replace("DRIVER", "psycopg"),
    "SQLAlchemy with psycopg2": SQLALCHEMY.replace("DRIVER", "psycopg2"),
}
LATE = """
import threading, time, psycopg
from pathlib import Path

conn = None

def connect():
    global conn
    while not Path(os.environ["QWORKER_TEST_DIR"], "go").exists():
        time.sleep(0.01)
    conn = psycopg.connect(dsn, autocommit=True)

threading.Thread(target=connect, daemon=True).start()
"""


def write(folder: Path, text: str) -> int:
    """Write the application's module; return the number of its last line."""
    module = HEAD + text
    (folder / "mall.py").write_text(module)
    return len(module.rstrip().splitlines())


def start(cluster: Cluster, *options: str) -> Node:
    return cluster.start(*options, QWORKER_APP="mall:app", PYTHONPATH=str(cluster.folder))


def enqueue(count: int) -> list[Job]:
    return [app.job(job_id) for job_id in answer.enqueue_many([(n,) for n in range(count)], ids=True)]


def imported(cluster: Cluster) -> int:
    """Count the sessions of connections that were opened by the application."""
    count: int = cluster.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'imported'")
    return count


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """Something that listens, speaks no protocol, and holds on to whoever connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.mark.parametrize("client", LEFT_OPEN)
def test_a_node_refuses_to_start_with_a_connection_to_a_database_and_names_the_line(
    cluster: Cluster, client: str
) -> None:
    line = write(cluster.folder, LEFT_OPEN[client])
    node = start(cluster)
    assert node.wait() == 78
    errors = [str(event["error"]) for event in node.events("configuration.invalid")]
    assert any(f"PostgreSQL{peer} open, opened in {cluster.folder}/mall.py, line {line} with {client}" in error
               for error in errors for peer in ("", f" at {address(cluster)}"))  # fmt: skip
    assert all("--allow-open-connections" in error for error in errors)
    assert node.events("child.spawned") == []


def address(cluster: Cluster) -> str:
    given = psycopg.conninfo.conninfo_to_dict(cluster.database.dsn)
    return f"{given['host']}:{given['port']}"


def test_told_to_go_on_workers_have_the_connection_cut_and_its_session_lives(cluster: Cluster) -> None:
    write(cluster.folder, "import psycopg; conn = psycopg.connect(dsn, autocommit=True)\n" + ECHO)
    node = start(cluster, "--allow-open-connections", "--processes", "2").await_ready()
    jobs = [reached(job) for job in enqueue(40)]
    assert {job.state for job in jobs} == {JobState.FAILED}
    assert {job.errors[-1]["type"].rpartition(".")[2] for job in jobs} == {"OperationalError"}
    (event,) = node.events("app.connection_open")
    assert event["peer"] == address(cluster)
    assert "disconnected" in event["hint"]
    assert imported(cluster) == 1


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_job_gets_its_own_answer_though_a_framework_has_asked_the_database_at_import(
    cluster: Cluster, framework: str
) -> None:
    write(cluster.folder, FRAMEWORKS[framework])
    (cluster.folder / "shopping").mkdir()
    (cluster.folder / "shopping/apps.py").write_text(READY)
    node = start(cluster, "--processes", "4").await_ready()
    assert node.events("app.connection_open") == []
    assert node.events("app.threads") == []
    assert imported(cluster) == 0
    os.kill(node.children("worker")[0], signal.SIGKILL)  # its successor is forked from the same parent
    node.await_event("child.died")
    jobs = enqueue(400)
    jobs = [reached(job, timeout=30) for job in jobs]
    assert [job for n, job in enumerate(jobs) if job.result != n] == []
    assert imported(cluster) >= 1


def test_a_connection_that_a_thread_opens_later_is_cut_in_workers_that_are_forked_then(cluster: Cluster) -> None:
    write(cluster.folder, LATE + ECHO)
    node = start(cluster, "--processes", "1").await_ready()
    (cluster.folder / "go").touch()
    until(lambda: imported(cluster) == 1)
    os.kill(node.children("worker")[0], signal.SIGKILL)
    node.await_event("child.died", child="worker 1")
    (job,) = enqueue(1)
    job = reached(job)
    assert (job.state, job.errors[-1]["type"].rpartition(".")[2]) == (JobState.FAILED, "OperationalError")
    assert imported(cluster) == 1


def test_in_the_foreground_nothing_is_shared_and_the_connection_is_only_reported(cluster: Cluster) -> None:
    write(cluster.folder, "import psycopg; conn = psycopg.connect(dsn, autocommit=True)\n" + ECHO)
    node = start(cluster, "--inline")
    jobs = enqueue(20)
    assert [reached(job).result for job in jobs] == list(range(20))
    assert len(node.events("app.connection_open", server="PostgreSQL")) == 1


def test_a_connection_to_something_else_is_reported_of_and_no_more(cluster: Cluster, server: socket.socket) -> None:
    host, port = server.getsockname()
    line = write(cluster.folder, f"import socket; conn = socket.create_connection(({host!r}, {port}))")
    node = start(cluster, "--processes", "1").await_ready()
    (event,) = node.events("app.connection_open")
    assert event["peer"] == f"{host}:{port}"
    assert event["opened_at"] == f"{cluster.folder}/mall.py, line {line}"
    assert event["server"] is None


def test_a_database_behind_a_unix_socket_is_known_by_its_path(cluster: Cluster) -> None:
    path = cluster.folder / ".s.PGSQL.5432"
    write(cluster.folder, f"import socket; conn = socket.socket(socket.AF_UNIX); conn.connect({str(path)!r})")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        node = start(cluster)
        assert node.wait() == 78
    (event,) = node.events("configuration.invalid")
    assert f"PostgreSQL at {path} open" in event["error"]


def test_listening_sockets_datagrams_pairs_and_what_was_there_before_are_no_connections(
    cluster: Cluster, server: socket.socket
) -> None:
    write(cluster.folder, dedent("""
        import socket
        listening = socket.create_server(("127.0.0.1", 0))
        statistics = socket.socket(type=socket.SOCK_DGRAM)
        statistics.connect(("127.0.0.1", 5432))
        pair = socket.socketpair()
        """))  # fmt: skip
    with socket.create_connection(server.getsockname()) as passed:
        os.set_inheritable(passed.fileno(), True)
        node = start(cluster, "--processes", "1").await_ready()
    assert node.events("app.connection_open") == []
