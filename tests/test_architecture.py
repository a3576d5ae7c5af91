"""The house is as docs/architecture.md draws it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from qworker import JobState

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()
ROOMS = re.findall(r"^### `([\w/]+)/`\n(.*?)(?=^### |\Z)", PAGE, re.MULTILINE | re.DOTALL)
FOLDERS = {path.parent.relative_to(ROOT) for top in ("queue", "workers") for path in (ROOT / top).rglob("__init__.py")}


def test_imports_lead_downwards() -> None:
    command = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_every_folder_is_a_room_on_the_page() -> None:
    assert {Path(folder) for folder, _ in ROOMS} == FOLDERS


@pytest.mark.parametrize(("folder", "text"), ROOMS, ids=[folder for folder, _ in ROOMS])
def test_every_file_of_a_room_is_named_and_no_other(folder: str, text: str) -> None:
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)) or text))
    assert named == {path.stem for path in (ROOT / folder).glob("*.py") if not path.stem.startswith("__")}


def test_every_file_that_the_page_sends_a_reader_to_exists() -> None:
    section = PAGE.partition("## Where to find\n")[2].partition("\n## ")[0]
    named = re.findall(r"`([\w/.]+)`", section)
    assert len(named) > 25
    rooms = ("workers/qworkerd/{}.py", "queue/{}.py", "queue/qworker/sql/{}")
    missing = [name for name in named if not any((ROOT / position.format(name)).exists() for position in rooms)]
    assert missing == ["wake"]  # a function, in the file beside it


def test_every_state_a_job_can_reach_is_in_the_diagram() -> None:
    listed = re.search(r"stateDiagram-v2\n(.*?)```", PAGE, re.DOTALL)
    assert listed
    states = {word for line in listed[1].splitlines() for word in re.findall(r"\w+", line.partition(":")[0])}
    assert states == {state.value for state in JobState} - {"forgotten", "blocked"}
