"""The peers of the comparison, ready to be measured."""

import fnmatch
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from contender import Contender
from on_node import NAME, Graphile, find_npm
from on_postgres import Huey, Oban, OnPostgres, PgQueuer, Procrastinate, pgqueuer
from on_redis import Celery, Dramatiq, RedisServer, Rq


@contextmanager
def contenders(dsn: str, python: str, folder: Path, pattern: str = "*") -> Iterator[list[Contender]]:
    """Yield the peers whose names match, installed, with a Redis in that folder; end what is left of them."""
    if fnmatch.fnmatch(NAME, pattern):
        find_npm()
    on_postgres: list[OnPostgres] = [
        PgQueuer(python, dsn, "blocking"),
        *pgqueuer(dsn, python),
        Graphile(dsn, folder),
        Procrastinate(python, dsn),
        Oban(python, dsn, "blocking"),
        Oban(python, dsn, "asynchronous"),
        Huey(python, dsn),
    ]
    with ExitStack() as stack:
        for contender in on_postgres:
            stack.callback(contender.database.close)
        redis = RedisServer(folder)
        on_redis = [Celery(python, redis.url), Rq(python, redis.url), Dramatiq(python, redis.url)]
        everyone = [peer for peer in (*on_postgres, *on_redis) if fnmatch.fnmatch(peer.name, pattern)]
        if any(peer.broker == "redis" for peer in everyone):
            stack.enter_context(redis)
        for contender in everyone:
            stack.callback(contender.stop)
            contender.install()
        yield everyone
