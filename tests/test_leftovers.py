"""Nothing stays when the tests themselves are killed."""

import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

from tests import leftovers
from tests.waiting import until

STARTER = """
import os, signal, subprocess, sys
from tests import leftovers
with leftovers.watched(os.environ[leftovers.MARK]):
    stopped = subprocess.Popen(["sleep", "600"], start_new_session=True)
    stopped.send_signal(signal.SIGSTOP)
    subprocess.Popen(["sh", "-c", "trap '' TERM HUP INT; sleep 600 & wait; sleep 600"])
    print("started", flush=True)
    signal.pause()
"""


def test_what_killed_tests_have_started_is_killed() -> None:
    mark = secrets.token_hex(8)
    root = str(Path(__file__).parents[1])
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER], stdout=subprocess.PIPE, cwd=root,
        env={**os.environ, leftovers.MARK: mark, "PYTHONPATH": root},
    )  # fmt: skip
    try:
        assert starter.stdout
        assert starter.stdout.readline() == b"started\n"
        until(lambda: len(dict(leftovers.left(mark))) == 4)  # the starter, one sleep, the shell and its sleep
        starter.send_signal(signal.SIGKILL)
        starter.wait()
        until(lambda: not dict(leftovers.left(mark)), 15)
    finally:
        leftovers.kill(mark)
        starter.communicate()
