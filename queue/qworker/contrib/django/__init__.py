"""qworker for Django: jobs in the models' database, and a backend for Django's tasks.

Importing this package imports no models, so it may be named in settings and imported before Django is set up.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qworker.contrib.django.application import DjangoApp
    from qworker.contrib.django.backend import Backend
    from qworker.contrib.django.doubles import DummyBackend, ImmediateBackend

    #: The application of the project, whose database is that of the models.
    app: DjangoApp

__all__ = ["Backend", "DummyBackend", "ImmediateBackend", "app"]


def __getattr__(name: str) -> Any:
    # All need the settings; the backends also need Django 6 or the package django-tasks.
    if name == "Backend":
        from qworker.contrib.django.backend import Backend

        return Backend
    if name in ("DummyBackend", "ImmediateBackend"):
        from qworker.contrib.django import doubles

        return getattr(doubles, name)
    if name == "app":
        from qworker.contrib.django.application import application

        return application()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
