"""A node of a project that has no tasks of Django."""

import subprocess
import sys

import django
import pytest

PROJECT = """
import sys
sys.modules["django_tasks"] = None
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["qworker.contrib.django"],
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "shop"}},
)
from qworker.contrib.django.node import load
load()
print("qworker.contrib.django.tasks" in sys.modules)
"""


@pytest.mark.skipif(django.VERSION >= (6,), reason="Django has tasks of its own")
def test_a_node_needs_no_tasks_of_django() -> None:
    """The modules `tasks` of installed apps are imported, and the app of qworker has one, which needs them."""
    done = subprocess.run([sys.executable, "-c", PROJECT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr
