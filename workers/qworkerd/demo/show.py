"""Shows a living system: a database, a node, jobs of all kinds without end, and the dashboard."""

import os
import random
import resource
import signal
import threading
from itertools import cycle
from pathlib import Path
from time import monotonic

import psycopg

from qworker.errors import QworkerError
from qworker.migrations import migrate
from qworkerd import log as log_events
from qworkerd.demo import jobs
from qworkerd.demo.node import Node
from qworkerd.demo.play import copy_log
from qworkerd.demo.screen import Screen
from qworkerd.embedded import EmbeddedPostgres
from qworkerd.web import create_app, everybody, server
from qworkerd.web.security import LOOPBACK

#: Interval of the load (seconds), and the jobs that are enqueued at once.
INTERVAL, BATCH = 1.0, (2, 30)
#: Every how many intervals a job of the other tasks is enqueued.
FLAKY, DELAYED, SLEEPY, DEADLY = 2, 5, 20, 90
#: For how long jobs are delayed (seconds).
DELAY = 300


def show(processes: int, screen: Screen, log: Path | None, port: int) -> None:
    """Serve the dashboard of a database and a node of its own until SIGTERM or Ctrl-C."""
    server.require()
    # As in `play`: these signals stop everything in order, and jobs that crash leave no core file.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    log_events.configure(level="warning")
    log_events.bind_process(role="web")
    begun = monotonic()
    with EmbeddedPostgres() as database:
        os.environ["QWORKER_DSN"] = database.dsn
        with psycopg.connect(database.dsn) as conn:
            migrate(conn)
            jobs.prepare(conn)
        here = database.folder / "node.log"
        with Node(processes, database.dsn, database.folder, log or here) as node, Load(screen):
            node.await_ready()
            screen.echo(
                f"PostgreSQL, a node with {processes} workers and mixed jobs run after {monotonic() - begun:.1f} s"
            )
            dashboard = create_app(jobs.app, access=everybody(), allowed_hosts=LOOPBACK)

            def ready(address: str) -> None:
                screen.echo(f"the dashboard is at {address}")
                screen.echo("its charts begin after a minute; stop everything with Ctrl-C")

            try:
                server.serve(dashboard, host="127.0.0.1", port=port, ready=ready)
                node.check()
            except QworkerError:
                screen.echo(f"the node's log is {log or copy_log(here)}")
                raise


class Load:
    """A thread that enqueues jobs of all tasks of the demo."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        files, number = cycle(jobs.files()), 0
        while not self._stop.wait(INTERVAL):
            number += 1
            try:
                self._enqueue([next(files) for _ in range(random.randint(*BATCH))], number)  # noqa: S311
            except QworkerError as error:
                self._screen.echo(f"jobs were not enqueued: {error}")

    @staticmethod
    def _enqueue(files: list[str], number: int) -> None:
        jobs.index.enqueue_many((name,) for name in files)
        if number % FLAKY == 0:
            jobs.flaky.options(tags=["flaky"]).enqueue()
        if number % DELAYED == 0:
            jobs.index.options(delay=DELAY, tags=["later"]).enqueue(files[0])
        if number % SLEEPY == 0:
            jobs.sleepy.enqueue()
        if number % DEADLY == 0:
            jobs.deadly.enqueue()
