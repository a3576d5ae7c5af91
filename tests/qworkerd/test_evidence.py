"""Why a process died: names for exit codes, and the kernel's count of out-of-memory kills."""

import signal
from pathlib import Path

import pytest

from qworkerd.supervisor import evidence
from qworkerd.supervisor.evidence import OomCounter, describe
from qworkerd.supervisor.reaper import CauseFinder, ChildExit


@pytest.mark.parametrize(
    ("code", "name"),
    [(0, "exit:0"), (1, "exit:1"), (137, "exit:137"), (-9, "signal:KILL"), (-11, "signal:SEGV"), (-33, "signal:33")],
)
def test_codes_have_names(code: int, name: str) -> None:
    assert describe(code) == name


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the kernel writes into memory.events (cgroups(7))."""
    file = tmp_path / "memory.events"
    monkeypatch.setattr(evidence, "_counters", lambda: [tmp_path / "not mounted", file])
    count(file, 4)
    return file


def count(file: Path, kills: int) -> None:
    file.write_text(f"low 0\nhigh 0\nmax 12\noom 5\noom_kill {kills}\noom_group_kill 0\n")


def test_a_kill_counts_once(events: Path) -> None:
    counter = OomCounter()
    assert not counter.increased()
    count(events, 5)
    assert counter.increased()
    assert not counter.increased()


def test_a_kill_for_memory_is_named_so_and_another_is_not(events: Path) -> None:
    finder, killed = CauseFinder(), ChildExit(1, -signal.SIGKILL, 100, 1.0)
    assert finder.cause_of(killed, None) == "signal:KILL"
    count(events, 5)
    assert finder.cause_of(killed, None) == "oom"
    assert finder.cause_of(killed, None) == "signal:KILL"


def test_the_old_control_groups_count_too(events: Path) -> None:
    events.write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
    counter = OomCounter()
    events.write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert counter.increased()


def test_where_nothing_counts_nothing_rises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "_counters", list)
    counter = OomCounter()
    assert not counter.increased()


def test_a_counter_that_goes_away_does_not_rise(events: Path) -> None:
    counter = OomCounter()
    events.unlink()
    assert not counter.increased()
