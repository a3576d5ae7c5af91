"""A Django project under test: its jobs, and a node that runs them, are in the databases of the tests."""

import json
import os
import sys
from typing import Any

from qworker import App

#: What a node reads: the names of the databases of tests by alias, as JSON.
DATABASES = "QWORKER_TEST_DATABASES"


def is_project(app: App) -> bool:
    """Return whether an application is that of a Django project."""
    module: Any = sys.modules.get("qworker.contrib.django.application")
    return module is not None and isinstance(app, module.DjangoApp)


def dsn(app: App) -> str:
    """Return the connection string of the database of tests, as it is now."""
    return app.dsn() if callable(app.dsn) else str(app.dsn)


def databases() -> str:
    """Return what makes a node use the databases of the tests."""
    from django.db import connections

    return json.dumps({alias: str(connections[alias].settings_dict["NAME"]) for alias in connections})


def use_databases() -> None:
    """Let this process use them, before Django is set up: handlers must not write to the databases of the settings."""
    from django.conf import settings

    for alias, name in json.loads(os.environ[DATABASES]).items():
        settings.DATABASES[alias]["NAME"] = name
