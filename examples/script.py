"""Sign people up: the row and the job that welcomes them are committed together, or not at all.

In this folder, with $QWORKER_DSN set:

    qworker db migrate
    qworker --app script:app          the node; in another terminal:
    python script.py Ada
"""

import os
import sys
from typing import Any

import psycopg
from psycopg.rows import scalar_row

from qworker import App, Job, current_job

app = App()


@app.task(timeout=30, retry=5)
def welcome(person_id: int) -> str:
    """Welcome somebody; runs in a worker."""
    row = current_job.connection.execute("SELECT name FROM person WHERE id = %s", (person_id,)).fetchone()
    if row is None:
        return "this person is gone"
    return f"welcome, {row[0]}"


def sign_up(conn: psycopg.Connection[Any], name: str) -> Job:
    """Add a person and what follows from it, in one transaction."""
    with conn.transaction():
        person_id = conn.execute("INSERT INTO person (name) VALUES (%s) RETURNING id", (name,)).fetchone()
        job = welcome.using(conn).enqueue(person_id)
        if not name.istitle():
            raise ValueError(f"{name!r} is not a name: the row is rolled back, and the job with it")
    return job


def main() -> None:
    with psycopg.connect(os.environ["QWORKER_DSN"], autocommit=True, row_factory=scalar_row) as conn:
        conn.execute("CREATE TABLE IF NOT EXISTS person (id bigserial PRIMARY KEY, name text NOT NULL)")
        for name in sys.argv[1:]:
            try:
                job = sign_up(conn, name)
            except ValueError as error:
                print(error)
            else:
                print(job.wait(timeout=30))


if __name__ == "__main__":
    main()
