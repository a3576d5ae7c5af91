"""A shop whose orders are shipped by jobs.

In the folder above, with $DATABASE_URL set and Django installed:

    python manage.py migrate
    python manage.py test
    python manage.py qworker run
"""
