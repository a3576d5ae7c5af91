"""What is recognised among the descriptors, and where it was opened."""

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from qworkerd.inheritance.frameworks import dsn_ports
from qworkerd.inheritance.inherited import Connection, Inheritance
from qworkerd.inheritance.openings import Openings
from tests.database import Database
from tests.qworkerd.conftest import Command
from tests.qworkerd.test_check import report


@pytest.fixture
def listening() -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()


def test_the_same_sockets_are_nothing_new_and_closed_ones_are_nothing(listening: tuple[str, int]) -> None:
    with socket.create_connection(listening), Inheritance() as inheritance, socket.create_connection(listening):
        pass
    assert inheritance.find_connections() == []


def test_a_connection_carries_its_peer_and_the_line_that_opened_it(
    listening: tuple[str, int], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(folder)
    host, port = listening
    (folder / "opens.py").write_text(f"import socket\n\nconn = socket.create_connection(({host!r}, {port}))\n")
    with Inheritance() as inheritance:
        import opens  # type: ignore[import-not-found]  # written above
    (found,) = inheritance.find_connections()
    with opens.conn:
        assert (found.server, found.peer, found.fatal) == (None, f"{host}:{port}", False)
        assert found.opening is not None
        assert found.opening.location == f"{folder}/opens.py, line 3"


@pytest.mark.parametrize("way", ["asyncio", "TLS"])
def test_a_connection_carries_its_line_also_where_its_descriptor_was_handed_on(
    listening: tuple[str, int], folder: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """asyncio connects without blocking, ssl.SSLSocket takes the descriptor over from the socket that has connected."""
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "hands_on", raising=False)
    code = {
        "asyncio": f"""import asyncio

loop = asyncio.new_event_loop()
conn, _ = loop.run_until_complete(loop.create_connection(asyncio.Protocol, {listening[0]!r}, {listening[1]}))
def close():
    conn.close()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
""",
        "TLS": f"""import socket


first = socket.create_connection(({listening[0]!r}, {listening[1]}))
conn = socket.socket(fileno=first.detach())
close = conn.close
""",
    }[way]
    (folder / "hands_on.py").write_text(code)
    with Inheritance() as inheritance:
        import hands_on  # type: ignore[import-not-found]  # written above
    (found,) = inheritance.find_connections()
    assert found.opening is not None
    assert found.opening.location == f"{folder}/hands_on.py, line 4"
    hands_on.close()


def test_the_port_of_the_applications_database_is_postgresqls(listening: tuple[str, int]) -> None:
    with Inheritance() as inheritance:
        conn = socket.create_connection(listening)
    with conn:
        (found,) = inheritance.find_connections(f"host=a,b port=1,{listening[1]}")
        assert (found.server, found.fatal) == ("PostgreSQL", True)


def test_what_a_dsn_does_not_say_or_libpq_cannot_read_names_no_port() -> None:
    assert dsn_ports("") == dsn_ports("port=") == dsn_ports("nonsense") == {}
    assert dsn_ports("host=a,b port=5433,5434") == {5433: "PostgreSQL", 5434: "PostgreSQL"}


def test_what_is_replaced_for_the_import_is_put_back() -> None:
    locations = [(psycopg.BaseConnection, "__init__"), (socket.socket, "connect"), (socket.socket, "connect_ex")]
    before = [getattr(owner, name) for owner, name in locations]
    finders = list(sys.meta_path)
    with Openings():
        assert all(getattr(owner, name) is not old for (owner, name), old in zip(locations, before, strict=True))
    assert [getattr(owner, name) for owner, name in locations] == before
    assert "connect" not in vars(socket.socket)
    assert sys.meta_path == finders


def test_what_somebody_has_wrapped_meanwhile_stays_wrapped_and_works(
    listening: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    with Openings() as openings:
        ours = socket.socket.connect

        def traced(self: socket.socket, address: tuple[str, int]) -> None:
            calls.append(address)
            ours(self, address)

        monkeypatch.setattr(socket.socket, "connect", traced)
    with socket.create_connection(listening):
        assert calls == [listening]
        assert openings.by_inode() == {}


def test_a_cut_connection_answers_nobody_and_its_session_goes_on(database: Database) -> None:
    with Inheritance() as inheritance:
        conn = psycopg.connect(database.dsn, autocommit=True)
    assert [found.server for found in inheritance.find_connections(database.dsn)] == ["PostgreSQL"]
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            inheritance.disconnect()
            conn.execute("SELECT 1")
        except psycopg.OperationalError:
            os.write(write, b"cut")
        finally:
            conn.close()
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"cut"
    with conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize(("peer", "server"), [("127.0.0.1:3306", "MySQL"), ("/run/.s.PGSQL.5432", "PostgreSQL")])
def test_a_finding_reads_as_a_sentence(peer: str, server: str) -> None:
    text = str(Connection(server, peer, 1))
    assert text == f"importing the application left a connection to {server} at {peer} open"


def test_check_finds_what_would_keep_a_node_from_starting(command: Command, shop: Path, database: Database) -> None:
    shop.write_text(shop.read_text() + f"\nimport psycopg\nconn = psycopg.connect({database.dsn!r})\n")
    line = len(shop.read_text().splitlines())
    (problem,) = report(command, "--app", "shop:app")["problems"]
    assert f"open, opened in {shop}, line {line} with psycopg" in problem
    assert "--allow-open-connections" in problem
    sys.modules["shop"].conn.close()


def test_check_warns_of_what_is_allowed_to_be_open(command: Command, shop: Path, database: Database) -> None:
    shop.write_text(shop.read_text() + f"\nimport psycopg\nconn = psycopg.connect({database.dsn!r})\n")
    found = report(command, "--app", "shop:app", "--allow-open-connections")
    assert found["problems"] == []
    assert any("disconnected in the workers" in warning for warning in found["warnings"])
    sys.modules["shop"].conn.close()
