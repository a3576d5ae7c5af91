"""Two weeks of polling in fast motion: the dashboard in this process, whose clock is moved on between polls."""

import gc
import os
import re
import shutil
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

from stage import Node, Producers, Stage

from qworkerd.web import ALL, READ, Access, application, create_app
from qworkerd.web.shared import Shared

#: Threads that ask, seconds by which a round moves the clock, and parts of the polls after which a line is printed.
THREADS, STEP, LINES = 4, 2.0, 12
#: What enqueues meanwhile.
LOAD = "import time; from tasks import noop\nwhile True: noop.enqueue_many([(1,)] * 10); time.sleep(0.1)"
REGION = re.compile(r'data-hx-get="([^"]+)"')
AGAIN = "/jobs/again"
#: What nobody has asked for before, and a form.
NEVER = (
    "/jobs?q=state:failed+task:t{}", "/jobs/{}.json", "/queue?name=q{}", "/errors/{:016x}", "/audit.csv?actor=u{}",
    "/operations/{}", "/schedules?find=s{}", "/jobs?order=oldest&below={}&region=list", "/nothing/{}",
    "/static/{}.css", "/?period={}h", AGAIN,
)  # fmt: skip
HEAD = "requests|simulated|RSS (MiB)|objects|threads|files|temporary|sessions|answers|large|renewed|late"


class Clock:
    """The clock of the answers."""

    now = 1_000.0

    def __call__(self) -> float:
        """Return the seconds."""
        return self.now


def run(stage: Stage, polls: int, addresses: list[str]) -> int:
    """Poll, and print what is used; return whether memory has grown since the first part of the polls."""
    clock = Clock()
    # A folder that only this process uses.
    tempfile.tempdir = tempfile.mkdtemp(prefix="bench-viewers-")
    with patch.object(application, "Shared", lambda: Shared(clock)):
        app = create_app(stage.web_dsn, access=_known)
    shared: Shared = app.extensions["qworker_shared"]
    numbers = count(1)
    client = app.test_client(use_cookies=False)
    regions = []
    for page in addresses:
        found = REGION.findall(client.get(page).get_data(as_text=True))
        regions += [address.replace("&amp;", "&") for address in found] or [page]
    tags: dict[str, str] = {}

    def poll(address: str) -> None:
        answer = app.test_client(use_cookies=False).get(address, headers={"If-None-Match": tags.get(address, "")})
        if answer.status_code >= 500:  # noqa: PLR2004
            print(address, answer.status_code, answer.get_data(as_text=True)[:200])
        tags[address] = answer.headers.get("ETag", "")

    def odd(number: int) -> None:
        """Ask as a new user for what nobody has asked for before, or send a form."""
        client, user = app.test_client(use_cookies=False), {"X-User": f"user-{number}", "Sec-Fetch-Site": "same-origin"}
        address = NEVER[number % len(NEVER)].format(number)
        if address == AGAIN:
            form = {"id": [number], "once": f"form-{number}", "back": "/"}
            client.post(address, data=form, headers=user)
        else:
            client.get(address, headers=user)

    print(f"| {HEAD.replace('|', ' | ')} |\n|" + "--:|" * len(HEAD.split("|")), flush=True)
    memory, done, began, due = [], 0, time.monotonic(), 0.0
    with (
        Node(stage, 2, "--queues", "default", quiet=True),
        Producers(stage, [LOAD]),
        ThreadPoolExecutor(THREADS) as pool,
    ):
        while done < polls:
            list(pool.map(poll, regions))
            list(pool.map(odd, [next(numbers) for _ in regions]))
            done += 2 * len(regions)
            clock.now += STEP
            if done >= due:
                due += polls / LINES
                memory.append(_line(done, clock.now - 1_000, stage, shared))
                # What is simulated must not be limited by the disk of this machine.
                stage.database.execute("DELETE FROM qworker.job_history WHERE task = 'noop'")
        memory.append(_line(done, clock.now - 1_000, stage, shared))
    app.extensions["qworker_source"].close()
    shutil.rmtree(tempfile.tempdir)
    grown = memory[-1] - memory[len(memory) // 3]
    print(f"{done / (time.monotonic() - began):.0f} requests/s; {grown:+.1f} MiB in the last two thirds")
    return int(grown > 0.05 * memory[-1])


def _known(environ: Any) -> Access:
    user = environ.get("HTTP_X_USER")
    return Access(user, READ if user and user.endswith("0") else ALL)


def _line(done: int, simulated: float, stage: Stage, shared: Shared) -> float:
    gc.collect()
    rss = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    sessions = stage.value("SELECT count(*) FROM pg_stat_activity WHERE usename = 'web'")
    files, temporary = (len([*Path(folder).iterdir()]) for folder in ("/proc/self/fd", tempfile.gettempdir()))
    cells = (
        f"{done:,}", f"{simulated / 86_400:.2f} d", f"{rss:.1f}", f"{len(gc.get_objects()):,}",
        threading.active_count(), files, temporary, sessions, *shared.sizes().values(),
    )  # fmt: skip
    print(f"| {' | '.join(map(str, cells))} |", flush=True)
    return rss
