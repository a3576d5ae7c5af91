"""A PostgreSQL server of one's own for demos and tests: a child of this process that never outlives it."""

import os
import re
import secrets
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from qworkerd.embedded import binaries
from qworkerd.embedded.binaries import EmbeddedError
from qworkerd.embedded.tempdir import TempDir
from qworkerd.process import spawn

# Ports from here up to where the kernel's ephemeral ones begin (32768 by default). Among those, a client that
# reconnects to a stopped server could be given the server's own port and keep it.
FIRST_PORT, LAST_PORT = 20_000, 32_000


class EmbeddedPostgres:
    """A PostgreSQL server on 127.0.0.1, made by `start` in a temporary folder and deleted by `close`.

    Use it as a context manager. It speaks TCP only, asks for a random password (scram-sha-256), keeps fsync on, and
    runs as `postgres` or `nobody` when the caller is root. When the caller dies, even by SIGKILL, the kernel tells
    the server to shut down; the next server started on the machine removes its folder.
    """

    host = "127.0.0.1"
    user = "postgres"
    #: The database to connect to when none is named.
    maintenance_dbname = "postgres"
    #: With `options`, what pytest-postgresql's `depends_on=` asks for.
    template_dbname: str | None = None
    options = ""
    #: Variables of the caller that the server gets; `environment` adds others.
    inherited = frozenset({"PATH", "LD_LIBRARY_PATH", "TZ", "TZDIR", "TMPDIR"})

    def __init__(
        self,
        settings: Mapping[str, str | int] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> None:
        #: Server parameters, read at each start.
        self.settings: dict[str, str | int] = dict(settings or {})
        #: Environment variables added to the server's, read at each start.
        self.environment: dict[str, str] = dict(environment or {})
        #: How long a start may take, in seconds; recovery after a crash is part of it.
        self.timeout = timeout
        #: 0 until started; the same after each restart.
        self.port = 0
        #: Where `postgres`, `initdb` and their like are, once started.
        self.bindir = Path()
        self.password = secrets.token_urlsafe(24)
        self._scratch: TempDir | None = None
        self._account: binaries.Account | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        """The URI of the database `postgres`, with the password."""
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{self.maintenance_dbname}"

    @property
    def folder(self) -> Path:
        """Where the server lives: `data`, and its log in `server.log`."""
        return self._home().path

    @property
    def pid(self) -> int | None:
        """The postmaster's process id, None when it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> Self:
        """Start the server, in a new folder the first time, and return once it accepts connections.

        Does nothing if it runs. Raises EmbeddedError, and leaves nothing behind when the first start fails.
        """
        if self.pid:
            return self
        if threading.current_thread() is not threading.main_thread():
            raise EmbeddedError(
                "start the embedded PostgreSQL from the main thread: it ends with the thread that started it"
            )
        if self._scratch:
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
        """Shut the server down without waiting for its clients, by force if it takes over 10 s; keep the data."""
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
        """Stop and start, on the same port, with the same data."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """Crash the server: SIGKILL to the postmaster. `start` recovers it."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """Stop the server and delete its folder. Idempotent."""
        self.stop()
        if self._scratch:
            try:
                # A killed postmaster's children notice and follow it, in their own time.
                with self._claim():
                    pass
            finally:
                self._scratch.remove()
                self._scratch = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _home(self) -> TempDir:
        if self._scratch is None:
            raise EmbeddedError("the embedded PostgreSQL has no folder: it is not started, or closed")
        return self._scratch

    @contextmanager
    def _claim(self) -> Iterator[int]:
        """Yield the lock that a new server inherits, once no process of an earlier one is left."""
        try:
            with self._home().claim(seconds=10.0) as fd:
                yield fd
        except TimeoutError as error:
            raise EmbeddedError(f"the embedded PostgreSQL was killed, but not all of it: {error}") from None

    def _create(self) -> None:
        """Make the folder and initialise the database cluster in it."""
        found = binaries.find()
        who = self._account = binaries.account()
        self._scratch = TempDir(binaries.base(who), shared=who is not None)
        self.bindir = binaries.reach(found, who, self.folder)
        data, secret = self.folder / "data", self.folder / "password"
        data.mkdir(mode=0o700)
        secret.touch(mode=0o600)
        secret.write_text(self.password, encoding="ascii")
        if who:
            os.chown(data, who.uid, who.gid)
            os.chown(secret, who.uid, who.gid)
        # No --locale but C exists everywhere; no sync, because a folder that a power cut leaves is not used again.
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
        """Launch on a free port; on another one if that has been taken in the meantime."""
        for left in (2, 1, 0):
            self.port = free_port()
            try:
                self._launch()
            except EmbeddedError as error:
                if left and "Address already in use" in self._log():
                    (self.folder / "server.log").unlink()
                    continue
                raise error from None
            return

    def _launch(self) -> None:
        """Start the postmaster as a direct child and wait until it is ready."""
        settings = {"listen_addresses": self.host, "unix_socket_directories": ""} | self.settings | {"port": self.port}
        with self._claim() as lock, open(self.folder / "server.log", "ab", opener=_private) as log:
            self._process = subprocess.Popen(
                self._command("postgres", "-D", self.folder / "data", *(f"-c{k}={v}" for k, v in settings.items())),
                env=self._environ(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock,),
                # Ctrl-C in the caller's terminal is the caller's to handle.
                start_new_session=True,
            )
        deadline = time.monotonic() + self.timeout
        while not self._ready():
            if not self.pid or time.monotonic() > deadline:
                self.kill()
                raise EmbeddedError(f"the embedded PostgreSQL did not start ({self.bindir}): {reason(self._log())}")
            time.sleep(0.01)

    def _ready(self) -> bool:
        """Say whether the postmaster accepts connections: the eighth line of its pid file tells (miscadmin.h)."""
        try:
            lines = (self.folder / "data" / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"  # noqa: PLR2004 - line 8

    def _command(self, program: str, *arguments: str | Path) -> list[str]:
        """Return the command line of one of PostgreSQL's programs, started so that it ends with this process."""
        ids = (self._account.uid, self._account.gid) if self._account else None
        return spawn.command([self.bindir / program, *arguments], account=ids)

    def _environ(self) -> dict[str, str]:
        """Return what the server needs of the caller's environment, and no more of it.

        The server may run under another account, which can read its environment, and with it the caller's secrets; and
        variables of libpq, of the locale or of a service manager would change its behaviour.
        """
        return {k: v for k, v in os.environ.items() if k in self.inherited} | {"LC_ALL": "C"} | self.environment

    def _log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on, outside the kernel's ephemeral range."""
    while True:
        port = FIRST_PORT + secrets.randbelow(LAST_PORT - FIRST_PORT)
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((EmbeddedPostgres.host, port))
            return port


def reason(output: str) -> str:
    """Return the line of a program's output that tells why it failed."""
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["no reason given"]
    return next((line for line in reversed(lines) if re.search("FATAL|PANIC|error:", line)), lines[-1])
