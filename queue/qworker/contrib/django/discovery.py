"""Imports the modules in which a project declares its tasks."""

import threading
from importlib import import_module
from types import ModuleType

from django.apps import apps
from django.utils.module_loading import module_has_submodule

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
            for config in apps.get_app_configs():
                # The module `tasks` of this app is the backend's, and needs Django's tasks.
                if config.label != "qworker":
                    _import_existing(config.name, config.module)
            _done.add("")
        for name in project().get("MODULES", ()):
            if name not in _done:
                import_module(name)
                _done.add(name)


def _import_existing(app: str, package: ModuleType) -> None:
    for name in NAMES:
        if module_has_submodule(package, name):
            import_module(f"{app}.{name}")
