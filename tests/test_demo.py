"""The demo as people start it: what it promises, and that nothing of it stays, however it ends."""

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from qworker.job import Job, JobState
from qworkerd.demo.events import Events
from qworkerd.demo.jobs import Totals
from qworkerd.demo.node import Node, NodeEnded
from qworkerd.demo.report import Facts, Report
from qworkerd.demo.screen import Screen
from qworkerd.demo.story import narrate
from tests import leftovers
from tests.database import Database
from tests.waiting import until

ROOT = Path(__file__).parent.parent
#: As a shell starts what goes into the background.
IGNORES_INTERRUPT = ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")


class Demo:
    """One `qworker demo`; all its processes carry a mark of their own."""

    def __init__(self, folder: Path, *options: str, starter: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.mark = secrets.token_hex(8)
        self.out, self.err = folder / "out", folder / "err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [*starter, sys.executable, "-m", "qworkerd", "demo", "--processes", "4", *options],
                env=os.environ | {leftovers.MARK: self.mark, "TMPDIR": str(folder)},
                # Settings of a project in the current folder are none of its business.
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def await_line(self, text: str) -> None:
        until(
            lambda: text in self.printed() or self.process.poll() is not None,
            60,
            lambda: f"{text!r} in {self.printed()}",
        )
        assert text in self.printed(), self.printed()

    def left(self, seconds: float) -> dict[int, str]:
        return leftovers.wait(self.mark, seconds)

    def servers(self) -> list[int]:
        """The PostgreSQL servers in the demo's folder; they inherit little of its environment, and no mark.

        A session that has not read its startup packet yet still carries the command of the server it was forked from.
        """
        home = str(self.folder).encode()
        parents = {}
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended
                command = (process / "cmdline").read_bytes()
                if b"/postgres\0-D" in command and home in command:
                    status = (process / "stat").read_text()
                    parents[int(process.name)] = int(status[status.rindex(")") + 1 :].split()[1])
        return [pid for pid, parent in parents.items() if parent not in parents]

    def printed(self) -> str:
        return self.out.read_text() + self.err.read_text()


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that the server's account can pass through, when root is testing; pytest closes its own to others."""
    with tempfile.TemporaryDirectory(prefix="tests-demo-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        (folder / "pyproject.toml").write_text('[tool.qworker]\napp = "nowhere:app"\nqueues = ["others"]\n')
        yield folder


@pytest.fixture
def start(reachable: Path) -> Iterator[Callable[..., Demo]]:
    demos: list[Demo] = []

    def run(*options: str, **how: Any) -> Demo:
        demos.append(Demo(reachable, *options, **how))
        return demos[-1]

    yield run
    for demo in demos:
        demo.process.kill()
        demo.process.wait()
        for pid in demo.left(0):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_it_does_what_it_promises_and_leaves_nothing_behind(start: Callable[..., Demo], reachable: Path) -> None:
    demo = start("--json", "--log", str(reachable / "node.log"))
    assert demo.process.wait(110) == 0, demo.printed()
    assert demo.left(0) == {}
    assert list(reachable.glob("qworker-*")) == []

    found = json.loads(demo.out.read_text())
    assert found["passed"] is True
    assert found["processes"] == 4
    assert found["rows"] == found["files"] >= 500
    assert found["functions"] > found["classes"] > 500
    assert found["retried"] >= 4
    assert found["failed"] == 2
    assert found["ticks"] >= 2
    jobs = found["jobs"]
    assert (jobs["flaky"]["state"], jobs["flaky"]["attempt"], jobs["flaky"]["causes"]) == ("completed", 3, [None, None])
    assert (jobs["sleepy"]["state"], jobs["sleepy"]["causes"]) == ("failed", ["timeout"])
    assert (jobs["deadly"]["state"], jobs["deadly"]["causes"]) == ("failed", ["signal:SEGV"] * 3)
    assert {check["name"] for check in found["checks"]} == {"files", "flaky", "sleepy", "deadly", "pulse", "node"}

    printed = demo.err.read_text()
    assert "\x1b" not in printed, "no terminal, no colours and no moving lines"
    assert f" of {found['files']} files, " in printed
    events = [json.loads(line)["event"] for line in (reachable / "node.log").read_text().splitlines()]
    assert events[0] == "supervisor.started"
    assert events[-1] == "supervisor.stopped"


def test_killed_it_takes_server_and_node_along(start: Callable[..., Demo]) -> None:
    demo = start(starter=IGNORES_INTERRUPT)
    demo.await_line("run 1 of 3")
    commands = " ".join(leftovers.wait(demo.mark, 0).values())
    assert "--processes 4" in commands
    assert len(demo.servers()) == 1
    demo.process.kill()
    assert demo.left(40) == {}
    until(lambda: demo.servers() == [], 40)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_early_it_ends_at_once_and_in_order(
    number: signal.Signals, start: Callable[..., Demo], reachable: Path
) -> None:
    demo = start()
    demo.await_line("run 1 of 3")
    demo.process.send_signal(number)
    assert demo.process.wait(20) == 130
    assert "stopped before the end" in demo.printed()
    assert demo.left(0) == {}
    assert list(reachable.glob("qworker-*")) == []


def test_what_runs_is_what_people_copy() -> None:
    from qworkerd.demo import jobs

    assert Path(jobs.__file__).resolve() == ROOT / "examples" / "stdlib_index" / "jobs.py"


RETRIED = {"event": "job.retried", "job": 1, "task": "demo.flaky", "error": "E: e", "retry_in": 0.5}
LOG = (
    RETRIED | {"attempt": 1, "max_attempts": 3},
    {
        "event": "job.failed",
        "job": 2,
        "task": "demo.sleepy",
        "duration": 1.001,
        "cause": "timeout",
        "error": "qworker.TimeoutInterrupt: s",
    },
    {"event": "cron.enqueued", "task": "demo.pulse", "tick": 300.0},
    {"event": "cron.enqueued", "task": "demo.pulse", "tick": 303.0},
)


def job(number: int, state: JobState, attempt: int = 1, crashes: int = 0, *causes: str | None) -> Job:
    errors = tuple({"cause": cause} for cause in causes)
    return Job(
        id=number,
        state=state,
        queue="default",
        priority=5,
        task="t",
        args={},
        attempt=attempt,
        crashes=crashes,
        errors=errors,
    )


def facts(**changed: Any) -> Facts:
    good: dict[str, Any] = {
        "processes": 4,
        "postgresql": "18",
        "files": 700,
        "seconds": 7.0,
        "totals": Totals(700, 9, 8, 7, 0),
        "flaky": job(1, JobState.COMPLETED, 3, 0, None, None),
        "sleepy": job(2, JobState.FAILED, 1, 0, "timeout"),
        "deadly": job(3, JobState.FAILED, 3, 3, *["signal:SEGV"] * 3),
        "pulses": [job(4, JobState.COMPLETED), job(5, JobState.COMPLETED)],
        "unfinished": 0,
        "failed": 2,
        "workers": 4,
        "exit_code": 0,
    }
    return Facts(**good | changed)


@pytest.fixture
def events(tmp_path: Path) -> Events:
    log = tmp_path / "log"
    log.write_text("\n".join(json.dumps(event) for event in LOG) + "\nno JSON\n")
    events = Events(log)
    events.read_new()
    return events


def test_all_is_as_promised_when_it_is(events: Events) -> None:
    report = Report(facts(), events)
    assert report.passed, report.checks
    assert "100 jobs/s" in "\n".join(report.lines())


def test_an_attempt_that_ran_again_counts_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    first, second = RETRIED | {"attempt": 1, "max_attempts": 3}, RETRIED | {"attempt": 2, "max_attempts": 3}
    crash = {"event": "job.crashed", "job": 3, "task": "demo.deadly", "crashes": 1, "attempt": 1}
    # The outcome of attempt 2 was lost with its worker: the attempt has run, and was logged, twice.
    retried = (first, second | {"retry_in": 1.0}, second | {"retry_in": 1.0})
    log.write_text("\n".join(json.dumps(event) for event in (*retried, crash, *LOG[1:])) + "\n")
    events = Events(log)
    events.read_new()
    report = Report(facts(), events)
    assert report.passed, report.checks
    flaky = next(check for check in report.checks if check.name == "flaky")
    assert flaky.text == "failed 2 times, again after 0.5 s and 1 s, completed in run 3"
    assert report.retried == 3


@pytest.mark.parametrize(
    ("broken", "changed"),
    [
        ("files", {"totals": Totals(699, 9, 8, 7, 0)}),
        ("files", {"files": 0, "totals": Totals(0, 0, 0, 0, 0)}),
        ("flaky", {"flaky": job(1, JobState.COMPLETED)}),
        ("flaky", {"flaky": job(1, JobState.FAILED, 3, 0, None, None)}),
        ("sleepy", {"sleepy": job(2, JobState.COMPLETED)}),
        ("sleepy", {"sleepy": job(9, JobState.FAILED, 1, 0, "timeout")}),
        ("deadly", {"deadly": job(3, JobState.FAILED, 1, 1, "signal:SEGV")}),
        ("deadly", {"workers": 3}),
        ("pulse", {"pulses": [job(n, JobState.COMPLETED) for n in (4, 5, 6)]}),
        ("node", {"exit_code": 70}),
        ("node", {"unfinished": 1}),
        ("node", {"failed": 3}),
    ],
)
def test_each_broken_promise_is_reported(broken: str, changed: dict[str, Any], events: Events) -> None:
    report = Report(facts(**changed), events)
    assert not report.passed
    assert [check.name for check in report.checks if not check.passed] == [broken]
    assert any("FAIL" in line and broken in line for line in report.lines())


def test_a_timeout_that_only_a_kill_enforced_is_reported(tmp_path: Path) -> None:
    log = tmp_path / "log"
    killed = {
        "event": "job.failed",
        "job": 2,
        "task": "demo.sleepy",
        "duration": 1.2,
        "cause": "timeout",
        "error": "WorkerDied: timeout",
    }
    log.write_text("\n".join(json.dumps(event) for event in (LOG[0], killed, *LOG[2:])) + "\n")
    events = Events(log)
    events.read_new()
    report = Report(facts(), events)
    assert [check.name for check in report.checks if not check.passed] == ["sleepy"]


def test_a_tick_that_is_missing_is_reported(tmp_path: Path) -> None:
    log = tmp_path / "log"
    late = {"event": "cron.enqueued", "task": "demo.pulse", "tick": 309.0}
    log.write_text("\n".join(json.dumps(event) for event in (*LOG, late)) + "\n")
    gap = Events(log)
    gap.read_new()
    report = Report(facts(pulses=[job(n, JobState.COMPLETED) for n in (4, 5, 6)]), gap)
    assert [check.name for check in report.checks if not check.passed] == ["pulse"]


def test_a_line_of_the_log_is_read_when_it_is_whole(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text('{"event": "on')
    events = Events(log)
    assert events.read_new() == []
    with log.open("a") as file:
        file.write('e"}\n')
    assert events.read_new() == [{"event": "one"}]
    assert events.read_new() == []


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            ['{"level": "info", "event": "a"}', '{"level": "critical", "event": "b", "error": "no database"}'],
            "no database",
        ),
        (['{"level": "critical", "event": "b", "exception": "Traceback\\nE"}', "noise"], "Traceback\nE"),
        (["Fatal Python error", "  at line 1"], "Fatal Python error\n  at line 1"),
    ],
)
def test_a_node_that_ends_early_is_asked_why(lines: list[str], words: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(lines) + "\n")
    events = Events(log)
    events.read_new()
    assert events.end_reason() == words


def test_a_node_that_cannot_start_ends_the_demo_with_its_reason(empty_database: Database, tmp_path: Path) -> None:
    with (
        Node(1, empty_database.dsn, tmp_path, tmp_path / "log") as node,
        pytest.raises(NodeEnded, match=r"exit code 78:\n.*qworker db migrate"),
    ):
        node.await_ready()


def test_unexpected_warnings_are_reported_and_usual_events_are_not() -> None:
    assert narrate({"level": "info", "event": "node.deregistered", "node": 1}) is None
    printed = narrate({"level": "error", "event": "maintenance.error", "timestamp": "t", "action": "cron"})
    assert printed is not None
    assert "maintenance.error action=cron" in printed
    found = {"level": "warning", "event": "doctor.finding", "finding": "a job failed", "check": "crashing-task"}
    printed = narrate({**found, "remedy": "qworker jobs retry 3"})
    assert printed is not None
    assert printed.endswith("a job failed; qworker jobs retry 3")
    assert narrate({"level": "warning", "event": "errors.new_group", "task": "work"}) is None


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True

    def written(self) -> str:
        text = self.getvalue()
        self.truncate(0)
        self.seek(0)
        return text


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return Terminal()


def test_on_a_terminal_a_line_stays_below_the_others(terminal: Terminal) -> None:
    screen = Screen(terminal)
    screen.show(0.5, "half")
    assert terminal.written().startswith("\r\x1b[Khalf  ")
    screen.echo("news")
    first, second = terminal.written().split("\n")
    assert first == "\r\x1b[Knews"
    assert second.startswith("half  ")
    screen.clear()
    assert terminal.written() == "\r\x1b[K"


def test_on_a_narrow_terminal_the_line_does_not_wrap(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    Screen(terminal).show(0.5, "a text of more than twenty letters")
    assert terminal.written() == "\r\x1b[Ka text of more than"
