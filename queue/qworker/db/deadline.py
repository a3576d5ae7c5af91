"""How long a connection waits for an answer: where a proxy hides that its server is gone, nobody else ever tells."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from time import monotonic
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen

T = TypeVar("T")


class DeadlineConnection(psycopg.Connection[Any]):
    """A connection that is closed when the server does not answer in time.

    A server that lives ends a statement at its own statement_timeout, and says so. Behind a proxy that has lost it,
    and goes on taking what is sent, no keepalive and no tcp_user_timeout ever tells.
    """

    #: How long to wait for an answer (seconds).
    answer_timeout = inf
    #: No answer came, and that is why it is closed.
    timed_out = False

    def wait(self, gen: PQGen[T], *args: Any, **options: Any) -> T:
        """Wait as psycopg does; raise OperationalError, and be closed, when no answer comes in time."""
        return super().wait(self._within(gen), *args, **options)

    def _within(self, gen: PQGen[T]) -> PQGen[T]:
        end = monotonic() + self.answer_timeout
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                # psycopg comes by ten times a second while nothing is heard.
                if not ready and monotonic() > end:
                    self.timed_out = True
                    self.close()
                    raise psycopg.OperationalError(
                        f"no answer for {self.answer_timeout:g} s: what the statement has done is not known"
                    )
                wanted = gen.send(ready)
        except StopIteration as stop:
            result: T = stop.value
            return result


@contextmanager
def answer_timeout_set(connection: psycopg.Connection[Any], seconds: float) -> Iterator[None]:
    """Have a connection of ours wait for so long for each answer in the block, for ever if that is infinite."""
    if not isinstance(connection, DeadlineConnection):
        yield
        return
    patience, connection.answer_timeout = connection.answer_timeout, seconds
    try:
        yield
    finally:
        connection.answer_timeout = patience
