"""The applications that "coming from" moves print the same before and after; test_documentation.py runs them after.

The other queues are not among the packages of the tests: they are installed into a folder of their own, which is kept
in the cache of pytest, and only their programs find them there. Celery and RQ need a redis-server.
"""

import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.database import Database
from tests.environment import install_beside
from tests.test_documentation import ROOT, SHOP, Block, blocks
from tests.waiting import until

#: Their versions are those of the pages.
REQUIREMENTS = ROOT / "tests" / "requirements-peers.txt"
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


@pytest.fixture(scope="module")
def peers(request: pytest.FixtureRequest) -> Path:
    """Return the folder of the other queues, in the versions of requirements-peers.txt."""
    key = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    cache: pytest.Cache = request.config.cache
    folder = cache.mkdir(f"peers-{key}")
    if not (folder / "complete").exists():
        install_beside(folder, REQUIREMENTS)
        (folder / "complete").touch()
    return folder


class Peer:
    """A folder with the files of a page, in which programs of another queue run."""

    def __init__(self, folder: Path, name: str, packages: Path, **environment: str) -> None:
        self.folder = folder
        self.environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{packages}"} | environment
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
                try:
                    program.wait(5)
                except subprocess.TimeoutExpired:
                    # After it has killed a process of its pool, a worker of Celery may wait for it for ever.
                    program.send_signal(signal.SIGQUIT)
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


def test_the_application_of_celery_runs(redis: str, peers: Path, tmp_path: Path) -> None:
    peer = Peer(tmp_path, "celery", peers, REDIS_URL=f"redis+socket://{redis}")
    with peer.running(
        f"{sys.executable} -m celery -A before.tasks worker -c 2 -Q celery,media",
        f"{sys.executable} -m celery -A before.tasks beat",
    ):
        assert peer.python("before/web.py").splitlines() == printed_before("celery")


def test_the_application_of_rq_runs(redis: str, peers: Path, tmp_path: Path) -> None:
    url = f"unix://{redis}"
    peer = Peer(tmp_path, "rq", peers, REDIS_URL=url)
    rq = f"{sys.executable} -m rq.cli"
    with peer.running(
        f"{rq} worker-pool -u {url} -P . -n 2 default media",
        f"{rq} worker -u {url} -P . --with-scheduler default media",
        f"{rq} cron -u {url} -P . before/schedule.py",
    ):
        assert peer.python("before/web.py").splitlines() == printed_before("rq")


def test_the_application_of_django_tasks_runs(empty_database: Database, peers: Path, tmp_path: Path) -> None:
    shutil.copytree(SHOP, tmp_path, dirs_exist_ok=True)
    dsn = "postgresql://{user}:{password}@{host}:{port}/{dbname}".format(**conninfo_to_dict(empty_database.dsn))
    peer = Peer(tmp_path, "django-tasks", peers, DATABASE_URL=dsn, DJANGO_SETTINGS_MODULE="before.settings")
    peer.python("-m", "django", "migrate", "--run-syncdb", "--verbosity", "0")
    with peer.running(f"{sys.executable} -m django db_worker --queue-name * --no-startup-delay"):
        assert peer.python("before/checkout.py").splitlines() == printed_before("django-tasks")
