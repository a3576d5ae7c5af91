"""The settings of the Django project of the tests, in this process and in its nodes."""

import os
from typing import Any

from psycopg.conninfo import conninfo_to_dict


def database(dsn: str, **others: Any) -> dict[str, Any]:
    """Return an entry of DATABASES."""
    found = conninfo_to_dict(dsn)
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    return {
        "ENGINE": "django.db.backends.postgresql",
        **{setting: str(found.get(name) or "") for setting, name in names.items()},
        **others,
    }


BACKEND = "qworker.contrib.django.Backend"

SECRET_KEY = "tests"
USE_TZ = True
TIME_ZONE = "Europe/Berlin"
LANGUAGE_CODE = "en-us"
LOGGING_CONFIG = None
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["tests.contrib.django.shop"]
DATABASES = {"default": database(os.environ.get("SHOP_DSN", ""))}
TASKS = {
    "default": {"BACKEND": BACKEND, "QUEUES": []},
    "reports": {"BACKEND": BACKEND, "QUEUES": [], "OPTIONS": {"max_attempts": 3, "backoff": 0, "timeout": 30}},
}
