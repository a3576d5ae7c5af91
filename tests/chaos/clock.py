"""A server whose wall clock can be moved while it runs (libfaketime), as an administrator or a broken NTP does."""

from pathlib import Path

from qworkerd.embedded import EmbeddedPostgres
from qworkerd.process import spawn
from tests.database import MORTAL

_LIBRARY = next((str(path) for path in Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)


class MovableClock(EmbeddedPostgres):
    """Without libfaketime the clock is the machine's, and stays so."""

    def __init__(self) -> None:
        super().__init__(MORTAL)
        self.movable = _LIBRARY is not None

    def move(self, seconds: float) -> None:
        """Have the server's clock differ from the machine's by so many seconds, from now on."""
        # Replaced as a whole: the server reads it whenever it asks for the time.
        new = self.folder / "clock.new"
        new.write_text(f"{seconds:+.0f}\n")
        new.replace(self.folder / "clock")

    def _launch(self) -> None:
        if not (self.folder / "clock").exists():
            self.move(0)
        super()._launch()

    def _command(self, program: str, *arguments: str | Path) -> list[str]:
        if program != "postgres" or _LIBRARY is None:
            return super()._command(program, *arguments)
        # Set below the change of account: the library opens what it shares before it is asked for the time.
        clock = {
            "LD_PRELOAD": _LIBRARY,
            "FAKETIME_TIMESTAMP_FILE": self.folder / "clock",
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # It takes a lock for each stat(2), which whoever is killed meanwhile never gives back.
            "NO_FAKE_STAT": "1",
        }
        ids = (self._account.uid, self._account.gid) if self._account else None
        assignments = [f"{name}={value}" for name, value in clock.items()]
        return spawn.command(["/usr/bin/env", *assignments, self.bindir / program, *arguments], account=ids)
