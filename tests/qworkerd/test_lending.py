"""The connection that handlers are lent: one after the other uses it, and each finds it as if it were new."""

from collections.abc import Iterator
from math import inf

import pytest
from psycopg.rows import dict_row

from qworker import App
from qworkerd.run import make_node
from qworkerd.settings import Settings
from qworkerd.slots import Role
from qworkerd.worker.lending import Lending
from tests.database import Database


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
