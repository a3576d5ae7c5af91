"""The pytest plugin of qworker: fixtures for applications that use it.

Nothing of qworker is imported until a test asks for a fixture. Options of pytest.ini or [tool.pytest.ini_options]:
qworker_app, the application as package.module:attribute; qworker_dsn, a server on which databases can be created.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_qworker.node import Node, Nodes
    from qworker import App

#: The nodes that are kept between tests.
_NODES: "pytest.StashKey[Nodes]" = pytest.StashKey()


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
def qworker_db(request: pytest.FixtureRequest, qworker_app: "App") -> Iterator[str]:
    """The DSN of a database to which the application is connected, and whose jobs are deleted after the test.

    In a Django project it is the database of pytest-django's `transactional_db`.
    """
    from pytest_qworker import django_project
    from pytest_qworker.database import connected

    if (nodes := request.config.stash.get(_NODES, None)) is not None and "qworker_node" not in request.fixturenames:
        nodes.stop()  # or it would run the jobs of a test that runs none
    if django_project.is_project(qworker_app):
        from qworker.testing import truncate

        request.node.add_marker(pytest.mark.django_db(transaction=True))
        request.getfixturevalue("transactional_db")
        yield django_project.dsn(qworker_app)
        truncate(qworker_app)
        return
    dsn = request.getfixturevalue("qworker_dsn")
    with connected(qworker_app, dsn):
        yield dsn


@pytest.fixture(scope="session")
def _qworker_nodes(request: pytest.FixtureRequest) -> Iterator["Nodes"]:
    from pytest_qworker.node import Nodes

    nodes = request.config.stash[_NODES] = Nodes()
    yield nodes
    nodes.stop()


@pytest.fixture
def qworker_node(request: pytest.FixtureRequest, qworker_app: "App", qworker_db: str) -> Iterator["Node"]:
    """A node with one worker for `qworker_db`. It remains for the tests that follow, unless one leaves jobs to it."""
    # After the fixture of the database, so that it is stopped before the database is dropped.
    nodes: Nodes = request.getfixturevalue("_qworker_nodes")
    node = nodes.running(str(request.config.getini("qworker_app")), qworker_app, qworker_db)
    yield node
    node.end_test(qworker_app)
