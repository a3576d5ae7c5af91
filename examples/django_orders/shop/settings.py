"""Django's settings. Jobs are in the database of the models."""

import os

from psycopg.conninfo import conninfo_to_dict

_where = conninfo_to_dict(os.environ["DATABASE_URL"])

SECRET_KEY = "of an example"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _where.get("dbname"),
        "USER": _where.get("user"),
        "PASSWORD": _where.get("password"),
        "HOST": _where.get("host"),
        "PORT": _where.get("port"),
        # A worker runs for days: it keeps its connection, and checks it before each job.
        "CONN_MAX_AGE": None,
        "CONN_HEALTH_CHECKS": True,
    }
}
INSTALLED_APPS = ["qworker.contrib.django", "shop"]
QWORKER = {"PROCESSES": 2}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
