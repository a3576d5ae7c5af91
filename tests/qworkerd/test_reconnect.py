"""Connections of the processes that come back, and what is said while they are away."""

from collections.abc import Iterator
from time import monotonic
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from qworker import App
from qworker.db.connection import SERVER_VARIABLES, UNNAMED
from qworkerd.config.settings import Settings
from qworkerd.process.reconnect import ReconnectingConnection
from qworkerd.run import make_node


class Record:
    """A log that keeps its events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **values: Any) -> None:
        self.events.append((event, values))

    info = warning


@pytest.fixture
def read_only(postgresql: psycopg.Connection[Any]) -> Iterator[str]:
    """The DSN of a database whose sessions take no writes, as all of a standby's."""
    postgresql.autocommit = True
    postgresql.execute(f"ALTER DATABASE {postgresql.info.dbname} SET default_transaction_read_only = on".encode())
    yield make_conninfo(postgresql.info.dsn, password=postgresql.info.password)
    postgresql.execute("SET transaction_read_only = off")


def test_a_server_that_takes_no_writes_is_away_and_said_ever_more_rarely(
    read_only: str, postgresql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    record, tries = Record(), 0

    def pause(seconds: float) -> None:
        nonlocal tries
        tries += 1
        if tries == 12:
            postgresql.execute("SET default_transaction_read_only = off")
            postgresql.execute(f"ALTER DATABASE {postgresql.info.dbname} RESET default_transaction_read_only".encode())

    link = ReconnectingConnection(
        make_node(App(), Settings(dsn=read_only, processes=1)), "test", pause, lambda: tries > 50
    )
    monkeypatch.setattr(link, "_log", record)
    database = link.get()
    assert database is not None
    assert database.execute("SHOW transaction_read_only").fetchone() == ("off",)
    link.drop()
    assert tries == 12
    away = [values for event, values in record.events if event == "database.disconnected"]
    assert 1 <= len(away) <= 2, "twelve tries in no time are one moment"
    assert "read-only" in away[0]["error"]


@pytest.mark.parametrize(
    ("dsn", "variables", "hinted"),
    [("", {}, True), ("user=ada", {}, True), ("host=/nowhere", {}, False), ("dbname=shop", {}, False),
     ("", {"PGHOST": "/nowhere"}, False), ("", {"PGSERVICE": "nowhere"}, False)],
)  # fmt: skip
def test_a_node_without_any_dsn_says_so_with_every_report(
    dsn: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, *, hinted: bool
) -> None:
    """A local server may be meant and not yet started, so that the node waits for it."""
    for name in ("QWORKER_DSN", "DATABASE_URL", *SERVER_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PGUSER", "nobody-of-this-name")
    record, begun = Record(), monotonic()
    node = make_node(App(), Settings(dsn=dsn or None, processes=1))
    link = ReconnectingConnection(node, "test", lambda _: None, lambda: monotonic() > begun + 1.2)
    monkeypatch.setattr(link, "_log", record)
    assert link.get() is None
    hints = [values.get("hint") for event, values in record.events if event == "database.disconnected"]
    assert len(hints) >= 2
    assert set(hints) == {UNNAMED if hinted else None}


def test_a_node_can_stop_waiting_for_writes(read_only: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = monotonic()
    link = ReconnectingConnection(
        make_node(App(), Settings(dsn=read_only, processes=1)),
        "test",
        lambda _: None,
        lambda: monotonic() > begun + 0.3,
    )
    monkeypatch.setattr(link, "_log", Record())
    assert link.get() is None
