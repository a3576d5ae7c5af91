"""What a node imports: Django has to be set up before tasks run."""

import django

django.setup()

from shop.jobs import app

__all__ = ["app"]
