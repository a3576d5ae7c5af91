"""What a node imports: Django has to be set up before tasks run."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
django.setup()

from shop.jobs import app

__all__ = ["app"]
