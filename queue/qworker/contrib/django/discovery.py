"""Imports the modules in which a project declares its tasks."""

import logging
import threading
from importlib import import_module
from types import ModuleType

from django.apps import apps
from django.utils.module_loading import module_has_submodule

from qworker.contrib.django.configuration import project

#: The modules of each installed app that are imported.
NAMES = ("jobs", "tasks")

_log = logging.getLogger("qworker.django")
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


def discover_what_can_be() -> None:
    """Do the same for a page or a result that needs no task: an error of a module is logged."""
    try:
        discover()
    except Exception:  # noqa: BLE001 - of a module of the project, whatever it raises
        _log.warning("a module with tasks cannot be imported; a node would not start", exc_info=True)


def _import_existing(app: str, package: ModuleType) -> None:
    for name in NAMES:
        if module_has_submodule(package, name):
            import_module(f"{app}.{name}")
