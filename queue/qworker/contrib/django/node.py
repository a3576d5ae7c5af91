"""What a node imports: `qworker --app qworker.contrib.django.node:default`; the attribute is an alias in TASKS."""

from typing import Any

import django
from django.apps import apps


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return load(name)


def load(alias: str = "default") -> Any:
    """Set Django up, import the project's tasks, and return the application of a backend."""
    if not apps.ready:
        django.setup()
    from qworker.contrib.django.application import application
    from qworker.contrib.django.discovery import discover

    app = application(alias)
    discover()
    if serves_tasks(alias):
        from qworker.contrib.django.tasks import all_loaded

        app.serve_tasks()
        for task in all_loaded():
            app.add_task(task)
    return app


def serves_tasks(alias: str) -> bool:
    """Return whether the backend with this alias is qworker's."""
    try:
        from qworker.contrib.django.api import InvalidTaskBackend, task_backends
        from qworker.contrib.django.backend import Backend
    except ImportError:
        return False
    try:
        return alias in task_backends.settings and isinstance(task_backends[alias], Backend)
    except InvalidTaskBackend:  # one that cannot be imported, of which Django complains where it is used
        return False
