"""Finds the application under test."""

import os

from qworker import App
from qworkerd.config.loading import load_app
from qworkerd.config.settings import Settings


def find(spec: str) -> App:
    """Return the App that a specification names, or that the settings of the project name."""
    return load_app(name_of(spec))


def name_of(spec: str) -> str:
    """Return the name of the application, package.module:attribute."""
    found = spec or Settings.load({})[0].app
    if not found and os.environ.get("DJANGO_SETTINGS_MODULE"):
        return "qworker.contrib.django.node:default"
    if not found:
        raise LookupError(
            "which application is tested? Set qworker_app = package.module:attribute in pytest.ini, or app in "
            "[tool.qworker] of pyproject.toml, or override the fixture qworker_app"
        )
    return found
