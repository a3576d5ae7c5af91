"""The applications that "coming from" moves print the same before and after; test_documentation.py runs them after.

The programs of the other queues run where they are installed: pip install 'celery[redis]' rq django-tasks-db, and a
redis-server. The versions are on the pages.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.database import Database
from tests.test_documentation import ROOT, SHOP, Block, blocks
from tests.waiting import until

#: The pages, with the file of each that enqueues.
PAGES = {"celery": "before/web.py", "rq": "before/web.py", "django-tasks": "before/checkout.py"}


def page(peer: str) -> list[Block]:
    return list(blocks(ROOT / "docs" / f"coming-from-{peer}.md"))


def printed_before(peer: str) -> list[str]:
    [before] = [block for block in page(peer) if block.name == PAGES[peer]]
    name, *lines = before.printed
    assert name == before.name, "the first comment is the name of the file"
    return lines


@pytest.mark.parametrize("peer", PAGES)
def test_the_application_prints_the_same_before_and_after(peer: str) -> None:
    [after] = [block for block in page(peer) if block.language == "python" and not block.name]
    assert printed_before(peer) == [line for line in after.printed if line != "100"]  # what enqueue_many returns


class Peer:
    """A folder with the files of a page, in which programs of another queue run."""

    def __init__(self, folder: Path, name: str, **environment: str) -> None:
        self.folder = folder
        self.environment = os.environ | {"PYTHONPATH": str(folder)} | environment
        for block in page(name):
            if block.name and block.name.startswith("before/"):
                (folder / block.name).parent.mkdir(exist_ok=True)
                (folder / block.name).write_text(block.text)

    @contextmanager
    def running(self, *lines: str) -> Iterator[None]:
        """Run programs of the environment of the tests until the end of the `with`."""
        programs = []
        try:
            for number, line in enumerate(lines):
                with (self.folder / f"{number}.log").open("wb") as log:
                    programs.append(
                        subprocess.Popen(
                            shlex.split(line), cwd=self.folder, env=self.environment, stdout=log, stderr=log
                        )
                    )
            yield
        finally:
            for program in reversed(programs):
                program.terminate()
            for program in reversed(programs):
                program.wait(30)

    def python(self, *words: str) -> str:
        return subprocess.run(
            [sys.executable, *words], cwd=self.folder, env=self.environment, check=True, capture_output=True, text=True,
            timeout=120,
        ).stdout  # fmt: skip


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    """Yield the path of the socket of a server."""
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("there is no redis-server")
    socket = tmp_path / "redis.sock"
    with subprocess.Popen(
        [server, "--port", "0", "--unixsocket", socket, "--save", "", "--dir", tmp_path], stdout=subprocess.DEVNULL
    ) as process:
        try:
            until(socket.exists, 10)
            yield str(socket)
        finally:
            process.terminate()


def test_the_application_of_celery_runs(redis: str, tmp_path: Path) -> None:
    pytest.importorskip("celery")
    peer = Peer(tmp_path, "celery", REDIS_URL=f"redis+socket://{redis}")
    with peer.running(
        f"{sys.executable} -m celery -A before.tasks worker -c 2 -Q celery,media",
        f"{sys.executable} -m celery -A before.tasks beat",
    ):
        assert peer.python("before/web.py").splitlines() == printed_before("celery")


def test_the_application_of_rq_runs(redis: str, tmp_path: Path) -> None:
    pytest.importorskip("rq")
    url = f"unix://{redis}"
    peer = Peer(tmp_path, "rq", REDIS_URL=url)
    rq = f"{sys.executable} -m rq.cli"
    with peer.running(
        f"{rq} worker-pool -u {url} -P . -n 2 default media",
        f"{rq} worker -u {url} -P . --with-scheduler default media",
        f"{rq} cron -u {url} -P . before/schedule.py",
    ):
        assert peer.python("before/web.py").splitlines() == printed_before("rq")


def test_the_application_of_django_tasks_runs(empty_database: Database, tmp_path: Path) -> None:
    pytest.importorskip("django_tasks_db")
    shutil.copytree(SHOP, tmp_path, dirs_exist_ok=True)
    dsn = "postgresql://{user}:{password}@{host}:{port}/{dbname}".format(**conninfo_to_dict(empty_database.dsn))
    peer = Peer(tmp_path, "django-tasks", DATABASE_URL=dsn, DJANGO_SETTINGS_MODULE="before.settings")
    peer.python("-m", "django", "migrate", "--run-syncdb", "--verbosity", "0")
    with peer.running(f"{sys.executable} -m django db_worker --queue-name * --no-startup-delay"):
        assert peer.python("before/checkout.py").splitlines() == printed_before("django-tasks")
