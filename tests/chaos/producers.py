"""Producers under fire: sessions that enqueue in transactions, some of which they roll back, or keep open."""

import threading
from random import Random
from time import sleep
from types import TracebackType
from typing import Any, Self

import psycopg

from qworker import Task
from tests.chaos import tasks

#: How often each task is wanted, the state it has to end in, and its longest argument (seconds).
WANTED: dict[Task[[float], Any], tuple[int, str, float]] = {
    tasks.works: (50, "completed", 0.05),
    tasks.counts: (50, "completed", 0.05),
    tasks.fails_first: (8, "completed", 0.02),
    tasks.crashes_first: (3, "completed", 0.02),
    tasks.hangs_first: (1, "completed", 1.0),
    tasks.snoozes_first: (5, "completed", 1.5),
    tasks.hopeless: (5, "failed", 0.02),
}


class Producers:
    """So many sessions that enqueue a few jobs a second each, from entering to leaving; they reconnect."""

    def __init__(self, dsn: str, random: Random, sessions: int = 3) -> None:
        self._dsn = dsn
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._produce, args=(Random(random.random()),), name=f"producer {number}")
            for number in range(sessions)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _produce(self, random: Random) -> None:
        while not self._over.is_set():
            try:
                with psycopg.connect(self._dsn, autocommit=True, connect_timeout=3) as connection:
                    while not self._over.wait(random.uniform(0.0, 0.4)):
                        self._enqueue(connection, random)
            except psycopg.Error:
                self._over.wait(0.05)

    def _enqueue(self, connection: psycopg.Connection[tuple[object, ...]], random: Random) -> None:
        """Enqueue a few jobs in one transaction; that they are expected commits with them, or not at all."""
        with connection.transaction(force_rollback=random.random() < 0.1):
            for task in random.choices([*WANTED], [often for often, _, _ in WANTED.values()], k=random.randint(1, 4)):
                _, state, longest = WANTED[task]
                delay = random.choice([0.0, 0.0, 0.0, 0.5])
                wanted = task.options(conn=connection, priority=random.randrange(10), delay=delay)
                job = wanted.enqueue(random.uniform(0.0, longest))
                connection.execute("INSERT INTO expected VALUES (%s, %s, %s)", (job.id, task.name, state))
            if random.random() < 0.03:
                sleep(random.uniform(0.0, 5.0))
