"""`qworker tasks`: what an application documents of its handlers, without a database."""

import json
from pathlib import Path

import pytest

from tests.qworkerd.conftest import Command

PARCELS = '''
from dataclasses import dataclass
from qworker import App, Retry

app = App()

@app.cron("0 3 * * *", timezone="Europe/Berlin")
@app.task(name="report", unique_for=3600, timeout=None)
def report(day: str = "today") -> None:
    """Write the nightly report.

    It is for the owners.
    """

@app.task(name="ship", typed=True, queue="parcels", priority=2, timeout=90, retry=Retry(5, delays={OSError: 3}))
def ship(order: int, to: "Address") -> str:
    """Hand an order to the carrier."""
    return ""

@ship.on_failure
def failed(job, error): ...

@ship.upgrade
def upgrade(args): return args

@app.task(name="plain", unique="one", retry=Retry(2, delays=lambda job, error: 1.0))
@dataclass
class Plain:
    number: int
    def handle(self): ...

@dataclass
class Address:
    street: str
'''


@pytest.fixture
def parcels(folder: Path) -> None:
    (folder / "parcels.py").write_text(PARCELS)


def test_the_list_has_a_line_for_each_task(parcels: None, command: Command) -> None:
    done = command("--app", "parcels:app", "tasks", "list")
    assert done.exit_code == 0, done.output
    text = " ".join(done.stdout.split())
    assert text.startswith("TASK QUEUE PRIORITY TIMEOUT ATTEMPTS TYPED SCHEDULES NOTE")
    assert "ship parcels 2 1m30s 5 yes - Hand an order to the carrier." in text
    assert "report default 5 none 3 - 0 3 * * * (Europe/Berlin) Write the nightly report." in text
    assert "plain default 5 - 2" in text


def test_one_task_is_shown_with_all_that_is_known(parcels: None, command: Command) -> None:
    shown = command("--app", "parcels:app", "tasks", "show", "report").stdout
    assert shown.startswith(
        "report(day: str = 'today') -> None\n\n    Write the nightly report.\n\n    It is for the owners.\n"
    )
    facts = dict(line.split(":", 1) for line in shown.splitlines()[6:])
    assert {name: value.strip() for name, value in facts.items()}.items() >= {
        "timeout": "none", "unique": "by its arguments, for 1h", "schedules": "0 3 * * * (Europe/Berlin)",
        "typed": "no", "on_failure": "no", "upgrade": "no",
    }.items()  # fmt: skip
    assert "parcels.py" in facts["defined"]
    ship = command("--app", "parcels:app", "tasks", "show", "ship").stdout
    for fact in ("typed:         yes", "on_failure:    yes", "upgrade:       yes", "timeout:       1m30s"):
        assert fact in ship
    plain = command("--app", "parcels:app", "tasks", "show", "plain").stdout
    assert plain.startswith("plain(number: int)")
    assert "key 'one'" in plain


def test_the_schema_of_a_typed_task_is_json(parcels: None, command: Command) -> None:
    schema = json.loads(command("--app", "parcels:app", "tasks", "show", "ship", "--schema").stdout)
    assert schema["required"] == ["order", "to"]
    assert schema["properties"]["order"] == {"title": "order", "type": "integer"}
    assert schema["additionalProperties"] is False
    done = command("--app", "parcels:app", "tasks", "show", "report", "--schema")
    assert done.exit_code != 0
    assert "has no schema, because it is not typed" in done.output


def test_programs_get_everything_as_json(parcels: None, command: Command) -> None:
    found = {
        task["name"]: task for task in json.loads(command("--app", "parcels:app", "tasks", "list", "--json").stdout)
    }
    assert found["report"]["schedules"] == {"report": {"expression": "0 3 * * *", "timezone": "Europe/Berlin"}}
    assert found["report"]["schema"] is None
    assert found["ship"] == json.loads(command("--app", "parcels:app", "tasks", "show", "ship", "--json").stdout)
    assert found["ship"]["retry"]["delays"] == {"OSError": 3}
    assert found["ship"]["schema"]["title"] == "ship"


def test_an_unknown_task_names_those_that_there_are(parcels: None, command: Command) -> None:
    done = command("--app", "parcels:app", "tasks", "show", "shp")
    assert done.exit_code == 2
    assert "task 'shp' not found; did you mean 'ship'? `qworker tasks list` lists all" in done.output


def test_jobs_of_typed_tasks_are_enqueued_from_json(parcels: None, command: Command) -> None:
    done = command("--app", "parcels:app", "enqueue", "ship", '[7, {"street": "Main"}]', "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["args"] == {"order": 7, "to": {"street": "Main"}}
    done = command("--app", "parcels:app", "enqueue", "ship", '{"order": "x", "to": {}}')
    assert done.exit_code == 2
    assert "args.order: Input should be a valid integer; args.to.street: Field required" in done.output


def test_check_finds_annotations_that_cannot_be_used(parcels: None, command: Command, folder: Path) -> None:
    (folder / "parcels.py").write_text(PARCELS.replace("class Address", "class Other"))
    done = command("--app", "parcels:app", "check")
    assert done.exit_code != 0
    assert "ship: its annotations cannot be used: name 'Address' is not defined" in done.output
