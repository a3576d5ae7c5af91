"""Start a node for the database of tests, whatever database the application names: `python -m pytest_qworker.serve`."""

import os

from pytest_qworker import django_project
from pytest_qworker.application import find
from qworkerd.cli.main import main

if __name__ == "__main__":
    if django_project.DATABASES in os.environ:
        django_project.use_databases()
    app = find(os.environ["QWORKER_APP"])
    if not django_project.is_project(app):
        app.dsn = app.pool.dsn = os.environ["QWORKER_DSN"]
    # The command imports the application again, and finds this one.
    main([], prog_name="qworker")
