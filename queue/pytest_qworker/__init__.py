"""The pytest plugin of qworker: fixtures for applications that use it.

Nothing of qworker is imported until a test asks for a fixture. Options of pytest.ini or [tool.pytest.ini_options]:
qworker_app, the application as package.module:attribute; qworker_dsn, a server on which databases can be created.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_qworker.node import Node
    from qworker import App


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    parser.addini("qworker_app", "the qworker App under test: package.module:attribute", default="")
    parser.addini("qworker_dsn", "a PostgreSQL server for tests; by default one is started", default="")


@pytest.fixture(scope="session")
def qworker_app(request: pytest.FixtureRequest) -> "App":
    """The application under test; override this fixture if it is made by a factory."""
    from pytest_qworker.application import find

    return find(str(request.config.getini("qworker_app")))


@pytest.fixture(scope="session")
def qworker_dsn(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database with qworker's schema, for this process of the session; it is dropped at the end.

    It is created on the server that the option qworker_dsn or $QWORKER_TEST_DSN names, or on an embedded one. The
    database of the application is never used. Override this fixture to create your own tables, too.
    """
    from pytest_qworker.database import temporary

    app: App = request.getfixturevalue("qworker_app")
    with temporary(str(request.config.getini("qworker_dsn")), app.schema) as dsn:
        yield dsn


@pytest.fixture
def qworker_db(qworker_app: "App", qworker_dsn: str) -> Iterator[str]:
    """The DSN of a database to which the application is connected, and whose jobs are deleted after the test."""
    from pytest_qworker.database import connected

    with connected(qworker_app, qworker_dsn):
        yield qworker_dsn


@pytest.fixture
def qworker_node(request: pytest.FixtureRequest, qworker_db: str) -> Iterator["Node"]:
    """A node with one worker for `qworker_db`, which runs until the end of the test."""
    from pytest_qworker.node import Node

    with Node(str(request.config.getini("qworker_app")), qworker_db) as node:
        yield node
