"""Tasks of an app."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.db import connection

from tests.contrib.django.shop.apps import note

try:
    from django.tasks import task
except ImportError:
    from django_tasks import task


def session() -> int:
    """Return the process of the server, by a query."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


@task
def echo(*args: Any, **kwargs: Any) -> Any:
    return [list(args), kwargs]


@task
async def later(x: int) -> int:
    return x + 1


@task
def fails() -> None:
    raise KeyError("nothing here")


@task
def gives(what: str) -> Any:
    return {"object": object(), "nan": float("nan"), "large": "x" * 70_000, "tuple": (1, 2), "bytes": b"abc"}[what]


@task
def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@task
def counts(n: int) -> None:
    note("counted", n=n)


@task
def writes(name: str) -> None:
    ContentType.objects.create(app_label="shop", model=name)


@task(takes_context=True)
def describe(context: Any) -> list[Any]:
    result = context.task_result
    return [result.id, result.status, context.attempt, result.args, result.kwargs, list(result.worker_ids)]


@task(takes_context=True)
def attempt(context: Any, x: int) -> list[int]:
    return [context.attempt, x]


@task(backend="reports")
def second_time(name: str) -> str:
    """Fail unless the file is there."""
    path = Path(os.environ["SHOP_FOLDER"]) / name
    if not path.exists():
        path.touch()
        while not path.with_suffix(".go").exists():
            time.sleep(0.01)
        raise ConnectionError("try again")
    return "done"


@task(backend="reports")
def reported() -> str:
    return "report"


#: The session of the process that has imported the module.
PARENT = session() if "SHOP_QUERIES_AT_IMPORT" in os.environ else 0


@task
def queries() -> list[int]:
    """Return the session of this process, and that of its parent."""
    return [session(), PARENT]


class Holder:
    """Has a function that no worker could find by its name."""

    def method(self) -> None: ...
