"""All peers of the comparison, ready to be measured."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contender import Contender
from on_postgres import Huey, Oban, OnPostgres, PgQueuer, Procrastinate, pgqueuer
from on_redis import Celery, Dramatiq, RedisServer, Rq


@contextmanager
def contenders(dsn: str, python: str, folder: Path) -> Iterator[list[Contender]]:
    """Yield all peers, installed, with a Redis in that folder; end what is left of them."""
    with RedisServer(folder) as redis:
        on_postgres: list[OnPostgres] = [
            PgQueuer(python, dsn, "blocking"),
            *pgqueuer(dsn, python),
            Procrastinate(python, dsn),
            Oban(python, dsn, "blocking"),
            Oban(python, dsn, "asynchronous"),
            Huey(python, dsn),
        ]
        everyone = [*on_postgres, Celery(python, redis.url), Rq(python, redis.url), Dramatiq(python, redis.url)]
        try:
            for contender in everyone:
                contender.install()
            yield everyone
        finally:
            for contender in everyone:
                contender.stop()
            for contender in on_postgres:
                contender.database.close()
