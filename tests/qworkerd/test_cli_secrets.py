"""What the command prints of a connection string that is not written as it should be."""

import json

import pytest

from qworkerd.config import target
from tests.qworker.test_dsn import SHAPES, S
from tests.qworkerd.conftest import Command

WORDS = [["check"], ["check", "--json"], ["jobs", "list"], ["db", "status", "--json"], ["db", "migrate"], ["queues"]]


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "a NUL"])
def test_the_command_shows_no_piece_of_it(name: str, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not because it knows the pieces and masks them, but because nothing prints them.
    monkeypatch.setattr(target, "register_secret", lambda _: None)
    for words in WORDS:
        done = command(*words, env={"QWORKER_DSN": SHAPES[name]})
        assert done.exit_code in (75, 78)
        assert len(done.output) > 40
        assert S not in done.output
        if words == ["check", "--json"]:
            assert json.loads(done.stdout)["settings"]["dsn"]["value"]
