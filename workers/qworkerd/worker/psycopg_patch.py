"""What psycopg has to be told about our interrupts."""

import psycopg

from qworker.errors import Interrupt


def register_interrupts() -> bool:
    """Have psycopg treat our interrupts as it treats Ctrl-C: cancel the running query, then go on.

    Otherwise the query runs on in the server, its locks held, and the next attempt waits for its own past. It holds for
    every connection of the process. The name is private: where it is missing, False is returned, and a query ends when
    its process does (see docs/decisions/0005).
    """
    known = getattr(psycopg.connection, "_INTERRUPTED", None)
    if not isinstance(known, tuple):
        return False
    if Interrupt not in known:
        psycopg.connection._INTERRUPTED = (*known, Interrupt)  # noqa: SLF001
    return True
