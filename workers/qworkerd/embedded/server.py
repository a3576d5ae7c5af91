"""A private PostgreSQL server for demos and tests: a child process that ends with its parent."""

import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from qworkerd.embedded import binaries
from qworkerd.embedded.binaries import EmbeddedError, reason
from qworkerd.embedded.ports import HOST, free_port
from qworkerd.embedded.tempdir import TempDir
from qworkerd.process import spawn


class EmbeddedPostgres:
    """A PostgreSQL server on 127.0.0.1, created by `start` in a temporary folder and deleted by `close`.

    Use it as a context manager. The server accepts TCP connections only, requires a random password (scram-sha-256),
    keeps fsync on, and runs as `postgres` or `nobody` if the caller is root. If the caller dies, even by SIGKILL, the
    kernel signals the server to shut down, and the next server that is started on the machine deletes its folder.
    """

    host = HOST
    user = "postgres"
    #: The database of `dsn`.
    maintenance_dbname = "postgres"
    #: This and `options` are attributes that pytest-postgresql requires of a process given as `depends_on=`.
    template_dbname: str | None = None
    options = ""
    #: Environment variables that are passed from the caller to the server; `environment` adds others.
    inherited = frozenset({"PATH", "LD_LIBRARY_PATH", "TZ", "TZDIR", "TMPDIR"})

    def __init__(
        self,
        settings: Mapping[str, str | int] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> None:
        #: Server parameters; they take effect at the next start.
        self.settings: dict[str, str | int] = dict(settings or {})
        #: Additional environment variables of the server; they take effect at the next start.
        self.environment: dict[str, str] = dict(environment or {})
        #: Maximum duration of a start in seconds, including recovery after a crash.
        self.timeout = timeout
        #: The TCP port: 0 before the first start, then the same at each restart.
        self.port = 0
        #: The folder of PostgreSQL's programs; set by `start`.
        self.bindir = Path()
        self.password = secrets.token_urlsafe(24)
        self._tempdir: TempDir | None = None
        self._account: binaries.Account | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        """The URI of the database `postgres`, with the password."""
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{self.maintenance_dbname}"

    @property
    def folder(self) -> Path:
        """The server's folder, which contains `data` and `server.log`; raises EmbeddedError before the first start."""
        return self._created_tempdir().path

    @property
    def pid(self) -> int | None:
        """The postmaster's process id; None if it is not running."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> Self:
        """Start the server and return when it accepts connections; the first start creates its folder.

        Does nothing if the server is running. Raises EmbeddedError; if the first start fails, nothing is left behind.
        """
        if self.pid:
            return self
        if threading.current_thread() is not threading.main_thread():
            raise EmbeddedError(
                "start the embedded PostgreSQL in the main thread: the kernel ends it with the thread that started it"
            )
        if self._tempdir:
            self._launch()
            return self
        try:
            self._create()
            self._launch_anywhere()
        except BaseException:
            self.close()
            raise
        return self

    def stop(self) -> None:
        """Stop the server in fast mode, or by force if this takes more than 10 seconds; the data is kept."""
        if self._process is None:
            return
        for number, seconds in ((signal.SIGINT, 10.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, None)):
            self._process.send_signal(number)
            try:
                self._process.wait(seconds)
                break
            except subprocess.TimeoutExpired:
                continue
        self._process = None

    def restart(self) -> None:
        """Stop and start the server; port and data remain the same."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """Crash the server by sending SIGKILL to the postmaster; the next `start` performs recovery."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """Stop the server and delete its folder. Idempotent."""
        self.stop()
        if self._tempdir:
            try:
                # The children of a killed postmaster exit when they notice its death, which takes a moment.
                with self._exclusive_lock():
                    pass
            finally:
                self._tempdir.remove()
                self._tempdir = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _created_tempdir(self) -> TempDir:
        if self._tempdir is None:
            raise EmbeddedError("the embedded PostgreSQL has no folder: it has not been started, or it is closed")
        return self._tempdir

    @contextmanager
    def _exclusive_lock(self) -> Iterator[int]:
        """Wait until no process of an earlier server is left; yield the lock that the new server inherits."""
        try:
            with self._created_tempdir().lock(seconds=10.0) as fd:
                yield fd
        except TimeoutError as error:
            raise EmbeddedError(f"the embedded PostgreSQL was killed, but {error}") from None

    def _create(self) -> None:
        """Create the folder and initialize the database cluster in it."""
        found = binaries.find_binaries()
        account = self._account = binaries.server_account()
        self._tempdir = TempDir(binaries.temporary_folder(account), shared=account is not None)
        self.bindir = binaries.make_accessible(found, account, self.folder)
        data, secret = self.folder / "data", self.folder / "password"
        data.mkdir(mode=0o700)
        secret.touch(mode=0o600)
        secret.write_text(self.password, encoding="ascii")
        if account:
            os.chown(data, account.uid, account.gid)
            os.chown(secret, account.uid, account.gid)
        # C is the only locale that exists everywhere. No sync: after a power failure the folder is not used again.
        options = ("--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", "--no-sync", "--no-instructions")
        done = subprocess.run(
            self._command("initdb", f"--username={self.user}", f"--pwfile={secret}", *options, f"--pgdata={data}"),
            env=self._environ(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
        secret.unlink()
        if done.returncode != 0:
            raise EmbeddedError(f"{self.bindir}/initdb failed: {reason(done.stderr.decode(errors='replace'))}")

    def _launch_anywhere(self) -> None:
        """Launch on a free port; try another one if a different process has occupied it meanwhile."""
        for remaining in (2, 1, 0):
            self.port = free_port()
            try:
                self._launch()
            except EmbeddedError as error:
                if remaining and "Address already in use" in self._log():
                    (self.folder / "server.log").unlink()
                    continue
                raise error from None
            return

    def _launch(self) -> None:
        """Start the postmaster as a child process and wait until it accepts connections."""
        settings = {"listen_addresses": self.host, "unix_socket_directories": ""} | self.settings | {"port": self.port}
        with self._exclusive_lock() as lock, open(self.folder / "server.log", "ab", opener=_private) as log:
            self._process = subprocess.Popen(
                self._command("postgres", "-D", self.folder / "data", *(f"-c{k}={v}" for k, v in settings.items())),
                env=self._environ(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock,),
                # Ctrl-C in the caller's terminal must not reach the server.
                start_new_session=True,
            )
        deadline = time.monotonic() + self.timeout
        while not self._ready():
            if not self.pid or time.monotonic() > deadline:
                self.kill()
                raise EmbeddedError(f"the embedded PostgreSQL did not start ({self.bindir}): {reason(self._log())}")
            time.sleep(0.01)

    def _ready(self) -> bool:
        """Return whether the postmaster accepts connections, which line 8 of its pid file shows (miscadmin.h)."""
        try:
            lines = (self.folder / "data" / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"  # noqa: PLR2004 - line 8

    def _command(self, program: str, *arguments: str | Path) -> list[str]:
        """Return the command that starts one of PostgreSQL's programs so that it ends with this process."""
        ids = (self._account.uid, self._account.gid) if self._account else None
        return spawn.command([self.bindir / program, *arguments], account=ids)

    def _environ(self) -> dict[str, str]:
        """Return the server's environment, which contains only those of the caller's variables that it needs.

        The server may run under another account, which can read its environment and must not see the caller's secrets.
        Variables of libpq, of the locale or of a service manager would change its behaviour.
        """
        return {k: v for k, v in os.environ.items() if k in self.inherited} | {"LC_ALL": "C"} | self.environment

    def _log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
