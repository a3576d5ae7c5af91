"""Helpers for tests of an application: run its jobs in the process and transaction of a test, and see what it enqueues.

There is one mode, the real one: jobs are rows, and they run through the code and the SQL of the worker. `perform` and
`MockQueue` are for tests without a database. This is the one part of the client that uses the package of the workers.
"""

from qworker.testing.assertions import assert_enqueued, enqueued, refute_enqueued
from qworker.testing.attempts import Attempt
from qworker.testing.drain import drain
from qworker.testing.mock import MockQueue
from qworker.testing.perform import perform
from qworker.testing.transaction import join
from qworker.testing.travel import travel
from qworker.testing.truncation import truncate

__all__ = [
    "Attempt",
    "MockQueue",
    "assert_enqueued",
    "drain",
    "enqueued",
    "join",
    "perform",
    "refute_enqueued",
    "travel",
    "truncate",
]
