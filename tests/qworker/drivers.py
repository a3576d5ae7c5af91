"""The drivers below SQLAlchemy on which jobs can be enqueued, and the URL of a database for each."""

import sqlalchemy
from psycopg.conninfo import conninfo_to_dict

DRIVERS = ["psycopg", "psycopg2", "pg8000"]


def url(dsn: str, driver: str) -> sqlalchemy.URL:
    parts = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    return sqlalchemy.URL.create(
        f"postgresql+{driver}", parts["user"], parts["password"], parts["host"], int(parts["port"]), parts["dbname"]
    )
