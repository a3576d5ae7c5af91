"""Records what the signals of Django's tasks say, if a test asks for it."""

import json
import os
import threading
from pathlib import Path
from typing import Any

from django.apps import AppConfig


def note(name: str, **facts: Any) -> None:
    """Append a line to a file of the test."""
    with (Path(os.environ["SHOP_FOLDER"]) / name).open("a") as file:
        file.write(json.dumps(facts) + "\n")


def leave_open(name: str) -> None:
    """Commit a row for each signal, then leave a block open."""
    from django.contrib.contenttypes.models import ContentType
    from django.db import transaction

    number = ContentType.objects.filter(app_label="shop", model__startswith=name).count()
    ContentType.objects.create(app_label="shop", model=f"{name}{number}")
    transaction.atomic().__enter__()
    ContentType.objects.create(app_label="shop", model="lost")


class ShopConfig(AppConfig):
    """Connects the receivers."""

    name = "tests.contrib.django.shop"

    def ready(self) -> None:
        from qworker.contrib.django.api import task_enqueued, task_finished, task_started

        for name, signal in (("enqueued", task_enqueued), ("started", task_started), ("finished", task_finished)):
            signal.connect(receiver(name), weak=False, dispatch_uid=name)  # once, also if apps are loaded again


def receiver(name: str) -> Any:
    """Return a receiver that compares what it is told with what is stored."""

    def receive(sender: type, task_result: Any, **_: Any) -> None:
        if "SHOP_FOLDER" not in os.environ:
            return
        stored = task_result.task.get_backend().get_result(task_result.id)
        note(
            "signals", signal=name, id=task_result.id, sender=f"{sender.__module__}.{sender.__qualname__}",
            status=task_result.status, stored=stored.status, equal=stored == task_result,
            thread=threading.current_thread().name,
        )  # fmt: skip
        if "SHOP_LEAKY_RECEIVERS" in os.environ:
            leave_open(name)
        if "SHOP_BROKEN_RECEIVERS" in os.environ:
            raise RuntimeError("a receiver that is broken")

    return receive
