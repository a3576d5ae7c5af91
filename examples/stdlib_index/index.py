"""Enqueue a job for each file of the standard library, and watch them go.

In this folder, with $QWORKER_DSN set:

    qworker db migrate
    qworker --app jobs:app --queues default,files       the node; in another terminal:
    python index.py
"""

import os
import time

import psycopg
from jobs import app, files, flaky, index, prepare, totals


def main() -> None:
    dsn = os.environ["QWORKER_DSN"]
    with psycopg.connect(dsn) as conn:
        prepare(conn)
        # On the connection that makes the table: both are there for others at its commit, or neither.
        count = index.using(conn).enqueue_many((path,) for path in files())
    mail = flaky.enqueue()

    queue = app.queue(index.queue)
    while left := queue.size() + queue.size("running"):
        print(f"{count - left} of {count} files")
        time.sleep(1)
    print(f"mail: {mail.wait(timeout=60)}, at attempt {mail.refresh().attempt}")
    with psycopg.connect(dsn) as conn:
        print(totals(conn))


if __name__ == "__main__":
    main()
