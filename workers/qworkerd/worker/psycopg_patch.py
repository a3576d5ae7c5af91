"""Registers the worker's interrupts with psycopg."""

import psycopg

from qworker.errors import Interrupt


def register_interrupts() -> bool:
    """Make psycopg handle interrupts like Ctrl-C: it cancels the running query, then raises.

    Otherwise the query would continue on the server and hold its locks, and the next attempt would wait for them. This
    applies to every connection of the process. The name is private to psycopg. If it is missing, False is returned, and
    a query then ends with its process (see docs/decisions/0005).
    """
    known = getattr(psycopg.connection, "_INTERRUPTED", None)
    if not isinstance(known, tuple):
        return False
    if Interrupt not in known:
        psycopg.connection._INTERRUPTED = (*known, Interrupt)  # noqa: SLF001
    return True
