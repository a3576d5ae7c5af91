"""A client-side deadline for the server's answers, in case a proxy hides the loss of its server."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from time import monotonic
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen

T = TypeVar("T")


class DeadlineConnection(psycopg.Connection[Any]):
    """A connection that closes itself if the server does not answer in time.

    A live server cancels a statement at statement_timeout and reports it. A proxy that has lost its server but keeps
    acknowledging packets triggers neither keepalives nor tcp_user_timeout. Only a client-side deadline notices.
    """

    #: Seconds to wait for an answer.
    answer_timeout = inf
    #: True if the connection was closed because no answer came.
    timed_out = False

    def wait(self, gen: PQGen[T], *args: Any, **options: Any) -> T:
        """Wait as psycopg does. If no answer comes in time, close the connection and raise OperationalError."""
        return super().wait(self._with_deadline(gen), *args, **options)

    def _with_deadline(self, gen: PQGen[T]) -> PQGen[T]:
        end = monotonic() + self.answer_timeout
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                # psycopg resumes the generator ten times a second while the socket is silent.
                if not ready and monotonic() > end:
                    self.timed_out = True
                    self.close()
                    raise psycopg.OperationalError(
                        f"no answer for {self.answer_timeout:g} s: it is unknown whether the statement took effect"
                    )
                wanted = gen.send(ready)
        except StopIteration as stop:
            result: T = stop.value
            return result


@contextmanager
def answer_timeout_set(connection: psycopg.Connection[Any], seconds: float) -> Iterator[None]:
    """Set the answer timeout of a DeadlineConnection inside the block; infinity disables it."""
    if not isinstance(connection, DeadlineConnection):
        yield
        return
    previous, connection.answer_timeout = connection.answer_timeout, seconds
    try:
        yield
    finally:
        connection.answer_timeout = previous
