"""Django's settings: nothing in them is about jobs."""

import os

from psycopg.conninfo import conninfo_to_dict

_where = conninfo_to_dict(os.environ["DATABASE_URL"])

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _where.get("dbname"),
        "USER": _where.get("user"),
        "PASSWORD": _where.get("password"),
        "HOST": _where.get("host"),
        "PORT": _where.get("port"),
        # A worker runs for days: a connection is checked before a job uses it (close_old_connections in jobs.py).
        "CONN_MAX_AGE": None,
        "CONN_HEALTH_CHECKS": True,
    }
}
INSTALLED_APPS = ["shop"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TEST_RUNNER = "shop.tests.Runner"
