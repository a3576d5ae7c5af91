"""Runs the demo: starts a database and a node, enqueues jobs, and waits until all have ended."""

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
from qworkerd.demo.story import narrate, retries
from qworkerd.embedded import EmbeddedPostgres

#: Interval of the checks for progress (seconds).
POLL_INTERVAL = 0.1
#: The rate shown is the average of this time (seconds).
RATE_WINDOW = 2.0
#: Number of cron ticks to wait for, if the files are done sooner.
MIN_TICKS = 2
#: Without progress for this time, the demo ends with what it has (seconds).
STALL_TIMEOUT = 30.0


def play(processes: int, screen: Screen, log: Path | None) -> Report:
    """Run the demo and return the report. The node's log is written to `log`, if given."""
    # These signals end the demo as Ctrl-C does, which stops everything in order.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    # The job that crashes must not leave a core file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    begun = monotonic()
    with EmbeddedPostgres() as server:
        os.environ["QWORKER_DSN"] = server.dsn
        with psycopg.connect(server.dsn) as conn:
            version = (conn.info.parameter_status("server_version") or "").partition(" ")[0]
            migrate(conn)
            jobs.prepare(conn)
        screen.echo(f"PostgreSQL {version} runs on {server.host}:{server.port}, after {monotonic() - begun:.1f} s")
        here = server.folder / "node.log"
        with Node(processes, server.dsn, server.folder, log or here) as node:
            report = Play(node, screen).run(server.dsn, version)
        if not report.passed:
            screen.echo(f"the node's log is {log or copy_log(here)}")
        return report


def copy_log(log: Path) -> Path:
    """Copy the log, whose folder will be deleted, to a temporary file; return its path."""
    descriptor, name = tempfile.mkstemp(prefix="qworker-demo-", suffix=".log")
    os.close(descriptor)
    shutil.copyfile(log, name)
    return Path(name)


class Progress(NamedTuple):
    """The progress of the jobs."""

    #: Number of files whose job has ended.
    done: int
    #: Jobs that have failed, with no attempt left.
    failed: int
    #: For each of the three special jobs, whether it has ended.
    over: tuple[bool, ...]
    #: Whether the schedule has ticked often enough.
    ticked: bool
    #: Number of live workers.
    workers: int


class Play:
    """One run of the demo on its own database and node."""

    def __init__(self, node: Node, screen: Screen) -> None:
        self._node = node
        self._screen = screen
        self._files = jobs.files()
        self._special: tuple[Job, ...] = ()
        self._begun = monotonic()
        #: When the last file was done (seconds after the start).
        self._duration = 0.0
        #: The number of files that were done, by time.
        self._history: deque[tuple[float, int]] = deque([(self._begun, 0)])

    def run(self, dsn: str, postgresql: str) -> Report:
        """Enqueue the jobs, watch them, stop the node, and report."""
        self._introduce()
        self._node.await_ready()
        self._enqueue()
        workers = self._watch().workers
        code = self._node.stop()
        self._narrate()
        last = self._progress()
        with psycopg.connect(dsn) as conn:
            totals = jobs.totals(conn)
        pulses = jobs.app.admin.find(task=jobs.pulse.name, limit=10_000)
        flaky, sleepy, deadly = (job.refresh() for job in self._special)
        facts = Facts(
            self._node.processes, postgresql, len(self._files), self._duration, totals, flaky, sleepy, deadly, pulses,
            len(self._files) - last.done + last.over.count(False), last.failed, workers, code,
        )  # fmt: skip
        return Report(facts, self._node.events)

    def _introduce(self) -> None:
        self._screen.echo(f"qworker --processes {self._node.processes} runs as process {self._node.pid}")
        self._screen.echo(
            f"a job for each of {len(self._files)} files of Python {platform.python_version()}'s library, "
            "and four special ones\n"
        )

    def _enqueue(self) -> None:
        self._begun = monotonic()
        # The crash comes a second later. Otherwise it could lose the outcome of flaky's last attempt, and repeat it.
        self._special = (
            jobs.flaky.enqueue(),
            jobs.sleepy.enqueue(),
            jobs.deadly.options(delay=1).enqueue(),
        )
        jobs.index.enqueue_many((name,) for name in self._files)

    def _watch(self) -> Progress:
        """Show the progress until all jobs have ended, or until there is none; return the last state."""
        before, moved = self._progress(), monotonic()
        while monotonic() - moved < STALL_TIMEOUT:
            self._node.check()
            self._narrate()
            now = self._progress()
            if now != before:
                before, moved = now, monotonic()
            self._show(now)
            if now.done < len(self._files):
                self._duration = monotonic() - self._begun
            elif all(now.over) and now.ticked and now.workers == self._node.processes:
                break
            sleep(POLL_INTERVAL)
        self._screen.clear()
        return before

    def _progress(self) -> Progress:
        sizes = jobs.app.admin.sizes()
        return Progress(
            done=len(self._files) - sum(sizes.get(jobs.index.queue, {}).values()),
            failed=sum(states.get(JobState.FAILED, 0) for states in sizes.values()),
            over=tuple(job.refresh().finished for job in self._special),
            ticked=sum(1 for _ in self._node.events.find("cron.enqueued")) >= MIN_TICKS,
            workers=len(self._live_workers()),
        )

    def _live_workers(self) -> set[int]:
        """Return the process ids of the workers in the node's last heartbeat, without those known to be dead."""
        dead = {event["child_pid"] for event in self._node.events.find("child.died")}
        named = (worker["pid"] for node in jobs.app.admin.nodes() for worker in node.state.get("workers", ()))
        return set(named) - dead

    def _narrate(self) -> None:
        for event in self._node.events.read_new():
            if line := narrate(event):
                self._screen.echo(f"{monotonic() - self._begun:6.1f} s {line}")

    def _show(self, progress: Progress) -> None:
        now = monotonic()
        self._history.append((now, progress.done))
        since, done = self._history[0]
        while now - since > RATE_WINDOW:
            self._history.popleft()
            since, done = self._history[0]
        rate = (progress.done - done) / (now - since) if now > since else 0.0
        facts = (
            f"{now - self._begun:6.1f} s {progress.done:>4} of {len(self._files)} files",
            f"{rate:.0f} jobs/s",
            f"{progress.failed} failed",
            f"{retries(self._node.events)} retried",
        )
        self._screen.show(progress.done / len(self._files), ", ".join(facts))
