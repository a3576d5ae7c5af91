"""Imports the modules in which a project declares its tasks."""

import threading
from importlib import import_module

from django.apps import apps
from django.utils.module_loading import autodiscover_modules

from qworker.contrib.django.configuration import project

#: The modules of each installed app that are imported.
NAMES = ("jobs", "tasks")

_lock = threading.RLock()
_done: set[str] = set()


def discover() -> None:
    """Import `jobs` and `tasks` of the installed apps, and the modules listed in QWORKER["MODULES"], once."""
    with _lock:
        if "" not in _done:
            apps.check_apps_ready()
            autodiscover_modules(*NAMES)
            _done.add("")
        for name in project().get("MODULES", ()):
            if name not in _done:
                import_module(name)
                _done.add(name)
