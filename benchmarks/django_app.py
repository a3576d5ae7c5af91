"""An application that brings Django along, as a shop does."""

import django.conf

django.conf.settings.configure(INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"])
django.setup()

from tasks import app  # noqa: E402

__all__ = ["app"]
