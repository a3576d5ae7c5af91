"""A PgBouncer in transaction mode, between a node and its database."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Self

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from qworkerd.embedded import binaries, free_port
from qworkerd.embedded.tempdir import TempDir
from qworkerd.process import spawn
from tests.waiting import until

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")

SETTINGS = """
[databases]
* = host={host} port={server} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = plain
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = 4
logfile = {folder}/log
"""


class PgBouncer:
    """`dsn` leads through it; four sessions of the server serve all who come."""

    def __init__(self, dsn: str) -> None:
        self._there = conninfo_to_dict(dsn)
        self._port = free_port()
        self.dsn = make_conninfo(dsn, host="127.0.0.1", port=self._port)

    def __enter__(self) -> Self:
        assert PROGRAM, "pgbouncer is missing"
        who = binaries.server_account()
        self._scratch = TempDir(binaries.temporary_folder(who), shared=who is not None)
        folder = self._scratch.path / "pgbouncer"
        folder.mkdir()
        there = self._there
        text = SETTINGS.format(host=there["host"], server=there["port"], port=self._port, folder=folder,
                               password=there["password"])  # fmt: skip
        self._write(folder / "settings", text)
        self._write(folder / "users", f'"{there["user"]}" "{there["password"]}"\n')
        if who:
            for path in (folder, *folder.iterdir()):
                os.chown(path, who.uid, who.gid)
        self._process = subprocess.Popen(
            spawn.command([PROGRAM, folder / "settings"], account=(who.uid, who.gid) if who else None),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until(self._answers, what=(folder / "log").read_text)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._scratch.remove()

    @staticmethod
    def _write(path: Path, text: str) -> None:
        path.touch(mode=0o600)
        path.write_text(text)

    def _answers(self) -> bool:
        assert self._process.poll() is None
        try:
            psycopg.connect(self.dsn, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True
