"""Sets Django up in the process of the tests, once, whichever test comes first."""

import os
import time

import django
from django.apps import apps


def set_up() -> None:
    """Configure Django with the settings of the tests; other tests keep their environment and local time."""
    if apps.ready:
        return
    before = dict(os.environ)
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.contrib.django.settings"
    django.setup()
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
    time.tzset()
