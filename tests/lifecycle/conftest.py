"""Nodes for tests: started on a clean database, never left behind, and no handler of theirs twice at the same time."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from qworker.migrations import migrate
from qworkerd.embedded import EmbeddedPostgres
from tests.database import Database
from tests.lifecycle.cluster import Cluster


@pytest.fixture
def cluster(database: Database, tmp_path: Path) -> Iterator[Cluster]:
    """Starts nodes for one test."""
    with Cluster(database, tmp_path) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def module_database(postgres_server: EmbeddedPostgres) -> Iterator[Database]:
    """A migrated database of the module's own: emptying the session's would declare a shared node dead."""
    database = Database.create(postgres_server, f"qworker_{secrets.token_hex(4)}")
    with psycopg.connect(database.dsn) as conn:
        migrate(conn)
    yield database
    database.drop(postgres_server)


@pytest.fixture(scope="module")
def module_cluster(module_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Starts nodes that the tests of a module share."""
    with Cluster(module_database, tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster
