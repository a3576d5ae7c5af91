"""The connection that handlers are lent: one after the other uses it, and each finds it as if it were new."""

from collections.abc import Iterator
from contextlib import suppress
from math import inf

import psycopg
import pytest
from psycopg.rows import dict_row

from qworker import App
from qworkerd.run import make_node
from qworkerd.settings import Settings
from qworkerd.slots import Role
from qworkerd.worker.lending import ClaimLost, Lending
from tests.database import Database
from tests.lifecycle.proxy import Proxy


@pytest.fixture
def lending(database: Database) -> Iterator[Lending]:
    node = make_node(App(), Settings(dsn=database.dsn, processes=1))
    node.table.slots[0].occupy(Role.WORKER, 1, inf, 0.0)
    lending = Lending(node, node.table.slots[0])
    yield lending
    lending.close()


def test_what_one_job_sets_does_not_concern_the_next(lending: Lending) -> None:
    """With autocommit still on, nothing that the next one does would be rolled back when it raises."""
    first = lending.lend()
    first.autocommit = True
    first.row_factory = dict_row
    assert lending.take_back(first, commit=True) is None
    second = lending.lend()
    assert second is first
    assert not second.autocommit
    assert second.execute("SELECT 1").fetchone() == (1,)
    assert lending.take_back(second, commit=True) is None


def test_a_transaction_that_ends_with_the_job_is_not_the_handlers_to_end(lending: Lending) -> None:
    connection = lending.begin()
    connection.execute("CREATE TEMPORARY TABLE seen (n int)")
    for end in (connection.commit, connection.rollback):
        with pytest.raises(psycopg.ProgrammingError):
            end()
    with suppress(ValueError), connection.transaction():
        connection.execute("INSERT INTO seen VALUES (1)")
        raise ValueError
    assert lending.take_back(connection, commit=True, last=lambda: True) is None
    again = lending.lend()
    assert again.execute("SELECT count(*) FROM seen").fetchone() == (0,)
    assert lending.take_back(again, commit=True) is None


@pytest.mark.parametrize("begin", ["begin", "lend"])
def test_what_cannot_be_committed_is_told_and_the_connection_goes_on(lending: Lending, begin: str) -> None:
    """The server answers COMMIT with a rollback where a statement has failed before, and the driver says nothing."""
    connection = getattr(lending, begin)()
    with suppress(psycopg.Error):
        connection.execute("SELECT 1/0")
    assert isinstance(lending.take_back(connection, commit=True), psycopg.errors.InFailedSqlTransaction)
    connection = getattr(lending, begin)()
    assert isinstance(lending.take_back(connection, commit=True, last=lambda: False), ClaimLost)
    assert lending.lost is None
    assert lending.lend().execute("SELECT 1").fetchone() == (1,)


def test_a_session_that_was_lost_in_the_commit_is_named(lending: Lending, database: Database) -> None:
    connection = lending.begin()
    pid = connection.info.backend_pid

    def last() -> bool:
        database.connect().execute("SELECT pg_terminate_backend(%s)", (pid,))
        return True

    assert isinstance(lending.take_back(connection, commit=True, last=last), psycopg.OperationalError)
    assert lending.lost is not None
    assert lending.lost.pid == pid
    connection = lending.begin()
    assert connection.info.backend_pid != pid
    assert lending.take_back(connection, commit=True) is None
    assert lending.lost is None


@pytest.mark.parametrize("commit", [True, False])
def test_nobody_waits_for_ever_for_a_commit_or_a_rollback(
    database: Database, monkeypatch: pytest.MonkeyPatch, commit: bool
) -> None:
    """A proxy has lost the server: what a commit has done is then for others to find out."""
    monkeypatch.setattr("qworkerd.worker.lending.COMMIT", 0.3)
    monkeypatch.setattr("qworkerd.worker.lending.ROLLBACK", 0.3)
    with Proxy(database.dsn) as proxy:
        node = make_node(App(), Settings(dsn=proxy.dsn, processes=1))
        node.table.slots[0].occupy(Role.WORKER, 1, inf, 0.0)
        lending = Lending(node, node.table.slots[0])
        connection = lending.begin()
        connection.execute("CREATE TEMPORARY TABLE seen (n int)")
        proxy.forget()
        error = lending.take_back(connection, commit=commit, last=lambda: True)
        assert connection.closed
        if commit:
            assert "no answer for 0.3 s" in str(error)
            assert lending.lost is not None
        else:
            assert error is None
        lending.close()
