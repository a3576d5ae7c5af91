"""A Django project whose database is that of the test."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from tests.contrib.django.settings import database as entry
from tests.contrib.django.site import set_up
from tests.database import Database
from tests.lifecycle.node import Node

# Before the modules of tests are imported: they import tasks.
set_up()


@pytest.fixture
def site(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project in this process, with its database; the folder for what the tasks note."""
    monkeypatch.setenv("SHOP_FOLDER", str(tmp_path))
    connections.close_all()
    monkeypatch.setitem(connections.settings, "default", {**connections.settings["default"], **entry(database.dsn)})
    if hasattr(connections._connections, "default"):
        delattr(connections._connections, "default")
    yield tmp_path
    connections.close_all()
    if hasattr(connections._connections, "default"):
        delattr(connections._connections, "default")


@pytest.fixture
def start(site: Path, database: Database) -> Iterator[Callable[..., Node]]:
    """Start nodes of the project, one worker each unless told otherwise."""
    nodes: list[Node] = []

    def start(alias: str = "default", *options: str, **environment: str) -> Node:
        environment = {
            "DJANGO_SETTINGS_MODULE": "tests.contrib.django.settings",
            "SHOP_DSN": database.dsn,
            "QWORKER_APP": f"qworker.contrib.django.node:{alias}",
            "SHOP_FOLDER": str(site),
            "QWORKER_PROCESSES": "1",
            **environment,
        }
        nodes.append(Node(site, database.dsn, *options, **environment))
        return nodes[-1]

    yield start
    for node in nodes:
        node.destroy()


@pytest.fixture
def burst(start: Callable[..., Node]) -> Callable[..., Node]:
    """Run a node until its queues are empty."""

    def burst(alias: str = "default", *options: str, **environment: str) -> Node:
        node = start(alias, "--burst", *options, **environment)
        node.wait(30.0)
        return node

    return burst


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return what was noted in a file."""
    path = folder / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
