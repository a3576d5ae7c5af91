"""The demo's course: a database, a node, jobs, and an eye on them until all are over."""

import os
import platform
import resource
import shutil
import signal
import tempfile
from collections import deque
from pathlib import Path
from time import monotonic, sleep
from typing import NamedTuple

import psycopg

from qworker.job import Job, JobState
from qworker.migrations import migrate
from qworkerd.demo import jobs
from qworkerd.demo.node import Node
from qworkerd.demo.report import Facts, Report
from qworkerd.demo.screen import Screen
from qworkerd.demo.story import retries, tell
from qworkerd.embedded import EmbeddedPostgres

#: Between two looks (seconds).
LOOK = 0.1
#: The rate shown is that of the last so many seconds.
WINDOW = 2.0
#: So many ticks are waited for, should the files be done sooner.
TICKS = 2
#: When nothing has moved on for so long, the demo ends as things stand (seconds).
PATIENCE = 30.0


def play(processes: int, screen: Screen, log: Path | None) -> Report:
    """Run the demo; return what came of it. The node's log is kept in `log`, if given."""
    # Ctrl-C's way out, on which everything is stopped in order, is every way out.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    # The job that crashes is not to leave a core file behind.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    begun = monotonic()
    with EmbeddedPostgres() as server:
        os.environ["QWORKER_DSN"] = server.dsn
        with psycopg.connect(server.dsn) as conn:
            version = (conn.info.parameter_status("server_version") or "").partition(" ")[0]
            migrate(conn)
            jobs.prepare(conn)
        screen.say(f"PostgreSQL {version} runs on {server.host}:{server.port}, after {monotonic() - begun:.1f} s")
        here = server.folder / "node.log"
        with Node(processes, server.dsn, server.folder, log or here) as node:
            report = Play(node, screen).run(server.dsn, version)
        if not report.kept:
            screen.say(f"the node's log is {log or keep(here)}")
        return report


def keep(log: Path) -> Path:
    """Copy a log out of the folder that is removed in a moment."""
    descriptor, name = tempfile.mkstemp(prefix="qworker-demo-", suffix=".log")
    os.close(descriptor)
    shutil.copyfile(log, name)
    return Path(name)


class Look(NamedTuple):
    """How far things are."""

    #: Files whose job is over.
    done: int
    #: Jobs that have failed for good.
    failed: int
    #: Which of the three special jobs are over.
    over: tuple[bool, ...]
    #: Whether the clock has ticked often enough.
    ticked: bool
    #: Workers that live.
    workers: int


class Play:
    """One run, on a database and a node of its own."""

    def __init__(self, node: Node, screen: Screen) -> None:
        self._node = node
        self._screen = screen
        self._files = jobs.files()
        self._special: tuple[Job, ...] = ()
        self._begun = monotonic()
        #: When the last file was done, as seconds after the begin.
        self._took = 0.0
        #: When how many files were done.
        self._course: deque[tuple[float, int]] = deque([(self._begun, 0)])

    def run(self, dsn: str, postgresql: str) -> Report:
        """Enqueue, watch, stop, sum up."""
        self._introduce()
        self._node.await_ready()
        self._enqueue()
        workers = self._watch().workers
        code = self._node.stop()
        self._tell()
        last = self._look()
        with psycopg.connect(dsn) as conn:
            totals = jobs.totals(conn)
        pulses = jobs.app.admin.find(task=jobs.pulse.name, limit=10_000)
        flaky, sleepy, deadly = (job.refresh() for job in self._special)
        facts = Facts(
            self._node.processes, postgresql, len(self._files), self._took, totals, flaky, sleepy, deadly, pulses,
            len(self._files) - last.done + last.over.count(False), last.failed, workers, code,
        )  # fmt: skip
        return Report(facts, self._node.events)

    def _introduce(self) -> None:
        self._screen.say(f"qworker --processes {self._node.processes} runs as process {self._node.pid}")
        self._screen.say(
            f"a job for each of {len(self._files)} files of Python {platform.python_version()}'s library, "
            "and four special ones\n"
        )

    def _enqueue(self) -> None:
        self._begun = monotonic()
        # The crash comes a second later: it would take along what flaky has just reported, and repeat that attempt.
        self._special = (
            jobs.flaky.enqueue(),
            jobs.sleepy.enqueue(),
            jobs.deadly.options(delay=1).enqueue(),
        )
        jobs.index.enqueue_many((name,) for name in self._files)

    def _watch(self) -> Look:
        """Show what happens until all is over, or nothing moves on any more; return the last look."""
        before, moved = self._look(), monotonic()
        while monotonic() - moved < PATIENCE:
            self._node.check()
            self._tell()
            look = self._look()
            if look != before:
                before, moved = look, monotonic()
            self._show(look)
            if look.done < len(self._files):
                self._took = monotonic() - self._begun
            elif all(look.over) and look.ticked and look.workers == self._node.processes:
                break
            sleep(LOOK)
        self._screen.clear()
        return before

    def _look(self) -> Look:
        sizes = jobs.app.admin.sizes()
        return Look(
            done=len(self._files) - sum(sizes.get(jobs.index.queue, {}).values()),
            failed=sum(states.get(JobState.FAILED, 0) for states in sizes.values()),
            over=tuple(job.refresh().finished for job in self._special),
            ticked=sum(1 for _ in self._node.events.find("cron.enqueued")) >= TICKS,
            workers=len(self._alive()),
        )

    def _alive(self) -> set[int]:
        """Return the process ids of the workers that the node's last beat names, without those known to be dead."""
        dead = {event["child_pid"] for event in self._node.events.find("child.died")}
        named = (worker["pid"] for node in jobs.app.admin.nodes() for worker in node.state.get("workers", ()))
        return set(named) - dead

    def _tell(self) -> None:
        for event in self._node.events.fresh():
            if line := tell(event):
                self._screen.say(f"{monotonic() - self._begun:6.1f} s {line}")

    def _show(self, look: Look) -> None:
        now = monotonic()
        self._course.append((now, look.done))
        while now - self._course[0][0] > WINDOW:
            self._course.popleft()
        since, done = self._course[0]
        rate = (look.done - done) / (now - since) if now > since else 0.0
        facts = (
            f"{now - self._begun:6.1f} s {look.done:>4} of {len(self._files)} files",
            f"{rate:.0f} jobs/s",
            f"{look.failed} failed",
            f"{retries(self._node.events)} retried",
        )
        self._screen.show(look.done / len(self._files), ", ".join(facts))
