"""What the program file for supervisord says."""

from configparser import RawConfigParser
from pathlib import Path

import pytest

from qworkerd.config.settings import Settings

FILE = Path(__file__).parents[2] / "supervisor" / "qworker.conf"


@pytest.fixture
def program() -> dict[str, str]:
    parser = RawConfigParser(inline_comment_prefixes=(";",))
    parser.read(FILE)
    return dict(parser["program:qworker"])


def test_it_waits_as_long_as_a_shutdown_with_default_settings_takes(program: dict[str, str]) -> None:
    assert int(program["stopwaitsecs"]) == Settings().stop_timeout


def test_jobs_programs_are_not_signalled_and_bad_settings_not_restarted(program: dict[str, str]) -> None:
    assert program["stopsignal"] == "TERM"
    assert program["stopasgroup"] == "false"
    assert program["autorestart"] == "unexpected"
    assert {"0", "78"} <= set(program["exitcodes"].split(","))
