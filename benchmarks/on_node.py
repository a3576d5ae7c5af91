"""The peer that runs in Node: it is installed with npm into a folder of the run, and not kept."""

import shutil
import subprocess
from pathlib import Path

from contender import PEERS
from on_postgres import Clocked

PACKAGE = "graphile-worker@0.17"
NAME = "graphile-worker 0.17, Node"


def find_npm() -> str:
    """Return the path of npm; end with what to do if it is missing."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise SystemExit(
            "npm or node is missing, which graphile-worker needs: as root, run: apt-get install npm;"
            " or leave it out: --peer '[!g]*'"
        )
    return npm


class Graphile(Clocked):
    """graphile-worker, with the settings of its own performance test. A job is deleted when it is done.

    `acknowledged` is not taken from a record, as there is none: it counts the jobs that are gone.
    """

    module = "graphile_noops"
    tables = "graphile_worker._private_jobs"
    first_waits = "SELECT id = 1 AND locked_at IS NULL FROM graphile_worker._private_jobs ORDER BY id LIMIT 1"
    unfinished = "SELECT 1 FROM graphile_worker._private_jobs ORDER BY id DESC LIMIT 1"
    done = "SELECT %s - count(*) FROM graphile_worker._private_jobs"

    def __init__(self, dsn: str, folder: Path) -> None:
        super().__init__(NAME, "node", dsn)
        self.folder = folder / "node"
        self.environment |= {"NODE_PATH": str(self.folder / "node_modules"), "NO_LOG_SUCCESS": "1"}
        self.node = ["node", str(PEERS / f"{self.module}.js")]

    def install(self) -> None:
        self.folder.mkdir()
        command = [find_npm(), "install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", str(self.folder)]
        subprocess.run([*command, PACKAGE], check=True, stdout=subprocess.DEVNULL)
        super().install()

    def create(self) -> None:
        self.script("install")

    def commands(self, processes: int) -> list[list[str]]:
        return [[*self.node, "work"]] * processes

    def script(self, verb: str, *numbers: int) -> float:
        return float(self.run([*self.node, verb, *map(str, numbers)]).split()[-1])

    def acknowledged(self) -> int:
        return int(self.database.execute(self.done, (self.enqueued,)).fetchall()[0][0])
