"""The operator's manual says what the code does."""

import re
from pathlib import Path

from qworkerd import exits
from qworkerd.settings import Settings, kinds

ROOT = Path(__file__).parents[2]
MANUAL = (ROOT / "docs" / "operations.md").read_text()
#: What events are about: the first half of their names.
NOUNS = "app|child|claim|configuration|cron|database|driver|duty|exception|history|inline|job|jobs|log|node|process"
NOUNS += "|scheduler|supervisor|thread|worker"


def part(name: str) -> str:
    return MANUAL.split(f"<!-- {name}:")[1].split(f"<!-- end of {name} -->")[0]


def setting_row(name: str) -> str:
    value = getattr(Settings(), name)
    if name == "processes":
        default = "cores"
    elif value is None:
        default = "" if name in ("app", "dsn") else "none"
    elif isinstance(value, float):
        default = f"{value:g}"
    else:
        default = ",".join(value) if isinstance(value, tuple) else str(value).lower()
    return f"| `{name}` | {default} | {kinds()[name].text} |"


def test_the_table_of_settings_is_that_of_the_code() -> None:
    rows = [line for line in part("settings").splitlines() if line.startswith("| `")]
    assert "\n".join(rows) == "\n".join(setting_row(name) for name in kinds())


def test_every_event_is_explained() -> None:
    event = re.compile(rf'(?:\(|else |"event": )\s*"((?:{NOUNS})\.[a-z_]+)"')
    logged = {
        name for file in (ROOT / "workers" / "qworkerd").rglob("*.py") for name in event.findall(file.read_text())
    }
    explained = re.findall(r"^\| `([a-z]+\.[a-z_]+)` \|", part("events"), re.MULTILINE)
    assert sorted(logged) == explained


def test_every_exit_code_is_explained() -> None:
    codes = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", MANUAL, re.MULTILINE)} == codes


def test_the_stop_timeout_is_that_of_the_default_settings() -> None:
    assert f"{Settings().stop_timeout} s with default settings" in MANUAL
