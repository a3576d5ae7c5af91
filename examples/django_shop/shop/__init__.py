"""A shop whose orders are shipped by jobs.

In the folder above, with $DATABASE_URL set, Django installed, and DJANGO_SETTINGS_MODULE=shop.settings:

    django-admin migrate --run-syncdb --pythonpath .
    qworker db migrate --app shop.worker:app
    qworker --app shop.worker:app
"""
