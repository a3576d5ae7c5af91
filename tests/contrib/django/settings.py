"""The settings of the Django project of the tests, in this process and in its nodes."""

import ast
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
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "qworker.contrib.django",
    "tests.contrib.django.shop",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "tests.contrib.django.urls"
STATIC_URL = "static/"
ALLOWED_HOSTS = ["testserver"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DATABASES = {"default": database(os.environ.get("SHOP_DSN", ""))}
if "SHOP_DATABASES" in os.environ:
    DATABASES = ast.literal_eval(os.environ["SHOP_DATABASES"])
TASKS = {
    "default": {"BACKEND": BACKEND, "QUEUES": []},
    "reports": {"BACKEND": BACKEND, "QUEUES": [], "OPTIONS": {"max_attempts": 3, "backoff": 0, "timeout": 30}},
}
