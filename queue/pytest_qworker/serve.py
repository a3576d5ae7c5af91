"""Start a node for the database of tests, whatever database the application names: `python -m pytest_qworker.serve`."""

import os

from pytest_qworker.application import find
from qworkerd.cli.main import main

if __name__ == "__main__":
    app = find(os.environ["QWORKER_APP"])
    app.dsn = app.pool.dsn = os.environ["QWORKER_DSN"]
    # The command imports the application again, and finds this one.
    main([], prog_name="qworker")
