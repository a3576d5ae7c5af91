"""Options that have no effect beside others, or before a subcommand, are refused and not ignored."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.database import Database
from tests.qworkerd.conftest import Command

REFUSED = [
    ("--queues mail stats", "--queues is a setting of nodes, and has no effect on `stats`"),
    ("--processes 2 --app shop:app jobs list", "--processes is a setting of nodes, and has no effect on `jobs`"),
    ("--metrics-port 9108 web", "--metrics-port is a setting of nodes"),
    ("check --inline --metrics-port 9108 --app shop:app", "metrics_port = 9108 from --metrics-port has no effect with"),
    ("doctor --watch --json", "--json has no effect with --watch"),
    ("doctor --webhook http://127.0.0.1:1/", "--webhook needs --watch"),
    ("doctor --interval 5m", "--interval needs --watch"),
    ("doctor --list --json", "--json has no effect with --list"),
    ("doctor --explain silent-node --only silent-node", "--only has no effect with --explain"),
    ("demo --web --json", "--json has no effect with --web"),
    ("demo --port 8091", "--port needs --web"),
    ("top --once --interval 5", "--interval has no effect with --once"),
    ("stats --target-drain 5m", "--target-drain needs --json"),
    ("jobs retry 1 --rate 5/s", "--rate needs a filter"),
    ("jobs cancel 1 2 --detach", "--detach needs a filter"),
    ("web --unix-socket s --port 1", "--port has no effect with --unix-socket"),
    ("web --users-file u passwd ada", "--users-file is an option of the server, and has no effect on `passwd`"),
    ("web --users-file u --rights all", "--rights has no effect"),
]  # fmt: skip
#: Those of the node itself.
NODES = [
    ("--inline --metrics-port 9108 --app shop:app", "metrics_port = 9108 from --metrics-port has no effect with"),
    ("--inline --processes 4 --app shop:app", "processes = 4 from --processes has no effect with --inline"),
    ("--inline --timeout 30 --app shop:app", "timeout = 30.0 from --timeout has no effect with --inline"),
    ("--metrics-labels queue --app shop:app", "from --metrics-labels has no effect without --metrics-port"),
    ("--log-days 3 --app shop:app", "log_days = 3 from --log-days has no effect unless job_logs is all"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[words for words, _ in REFUSED])
def test_an_option_without_effect_is_refused(command: Command, shop: Path, words: str, message: str) -> None:
    done = command(*words.split())
    assert done.exit_code == 2, done.output
    assert message in re.sub(r"\s+", " ", done.output)


@pytest.mark.parametrize(("words", "message"), NODES, ids=[words for words, _ in NODES])
def test_a_node_does_not_start_with_an_option_without_effect(
    database: Database, shop: Path, words: str, message: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "qworkerd", *words.split()], capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | {"QWORKER_DSN": database.dsn},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert message in done.stderr


@pytest.mark.parametrize(
    "words", ["jobs list", "stats --json", "doctor --json --only silent-node", "check --queues default"]
)
def test_options_with_an_effect_are_accepted_before_a_subcommand(command: Command, shop: Path, words: str) -> None:
    assert command("--app", "shop:app", "--schema", "qworker", *words.split()).exit_code == 0


def test_settings_of_the_environment_may_be_for_other_nodes(command: Command, shop: Path) -> None:
    """The environment of a service names a port; somebody looks for a fault with --inline in it."""
    done = command("check", "--app", "shop:app", "--inline", "--json", env={"QWORKER_METRICS_PORT": "9108"})
    assert done.exit_code == 0
    (warning,) = [line for line in json.loads(done.stdout)["warnings"] if "no effect" in line]
    assert warning.startswith("metrics_port = 9108 from $QWORKER_METRICS_PORT has no effect with --inline")


def test_the_webhook_of_the_environment_does_not_prevent_a_single_round(command: Command, database: Database) -> None:
    done = command("doctor", "--only", "silent-node", env={"QWORKER_WEBHOOK": "http://127.0.0.1:1/"})
    assert done.exit_code == 0
