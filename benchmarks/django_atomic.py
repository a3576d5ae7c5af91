"""Enqueueing inside Django's atomic() against plain cursor.execute of the same INSERT on the same connection.

    python benchmarks/django_atomic.py [--rounds 40] [--calls 250]

Both take turns in one process, in blocks of their own, on an embedded PostgreSQL. The ratio of the medians has to be at
least 0.8. A task of Django's tasks, which also makes a result, is shown beside them.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

from django.conf import settings
from psycopg.conninfo import conninfo_to_dict

from qworker.db.statements import load
from qworkerd.embedded import EmbeddedPostgres

BAR = 0.8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--calls", type=int, default=250)
    given = parser.parse_args()
    with EmbeddedPostgres() as server:
        set_up(server.dsn)
        measure(given.rounds, given.calls)


def set_up(dsn: str) -> None:
    import django

    parts = conninfo_to_dict(dsn)
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    database = {setting: str(parts.get(name) or "") for setting, name in names.items()}
    settings.configure(
        SECRET_KEY="of a benchmark",  # noqa: S106
        USE_TZ=True,
        LOGGING_CONFIG=None,
        INSTALLED_APPS=["qworker.contrib.django"],
        DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", **database}},
        TASKS={"default": {"BACKEND": "qworker.contrib.django.Backend"}},
    )
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def measure(rounds: int, calls: int) -> None:
    from django.db import connection, transaction

    from qworker.contrib.django import app

    @app.task(name="noop")
    def noop(n: int) -> None: ...

    insert = load("enqueue", app.schema)["enqueue"]
    values = {"task": "noop", "queue": "default", "priority": 5, "overrides": None, "tags": []}

    def ours(n: int) -> None:
        noop.enqueue(n)

    def plain(n: int) -> None:
        with connection.cursor() as cursor:
            cursor.execute(insert, {**values, "args": json.dumps({"n": n})})
            cursor.fetchone()

    sides: dict[str, Callable[[int], None]] = {"enqueue": ours, "cursor.execute": plain, "task.enqueue": django_task()}
    took: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):  # the first does not count
        for name, call in sides.items():
            with transaction.atomic():
                start = time.perf_counter()
                for n in range(calls):
                    call(n)
                passed = time.perf_counter() - start
            if turn:
                took[name].append(passed / calls)
    medians = {name: statistics.median(values) for name, values in took.items()}
    for name, seconds in medians.items():
        print(f"{name:16}{seconds * 1e6:8.1f} µs  {1 / seconds:8.0f} calls/s")
    for name in ("enqueue", "task.enqueue"):
        print(f"{name:16}{medians['cursor.execute'] / medians[name]:8.2f} of cursor.execute")
    print(f"bar: enqueue ≥ {BAR}: {'reached' if medians['cursor.execute'] / medians['enqueue'] >= BAR else 'MISSED'}")


def django_task() -> Any:
    """Return what enqueues a task of Django; the function has to be found at the level of a module."""
    from qworker.contrib.django.api import task_backends

    backend = task_backends["default"]
    made = backend.task_class(
        priority=0, func=nothing, backend="default", queue_name="default", run_after=None, takes_context=False
    )
    return made.enqueue


def nothing(n: int) -> None: ...


if __name__ == "__main__":
    main()
