"""What a failed run leaves, in one folder: error, seed, the faults that struck, the logs of the nodes."""

import os
import shutil
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

#: Where the folders are made: beside the tests unless $CHAOS_EVIDENCE names another place. Git ignores it.
FOLDER = Path(os.environ.get("CHAOS_EVIDENCE") or Path(__file__).parents[2] / "chaos-evidence")


@contextmanager
def kept(run: Path, faults: Sequence[str], *, seed: int, seconds: float) -> Iterator[None]:
    """Copy what is in the folder of a run if the block raises; the error names where the copy is.

    faults: what has struck so far; the list is read when the block raises.
    """
    try:
        yield
    except Exception as error:
        folder = FOLDER / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-seed-{seed}"
        shutil.copytree(run, folder / "run", ignore=_no_locks)
        (folder / "faults").write_text("".join(f"{line}\n" for line in faults))
        (folder / "error").write_text("".join(traceback.format_exception(error)))
        (folder / "repeat").write_text(f"CHAOS_SEED={seed} CHAOS_SECONDS={seconds:g} python -m pytest -s tests/chaos\n")
        error.add_note(f"error, faults and logs of the nodes: {folder}")
        raise


def _no_locks(folder: str, names: list[str]) -> set[str]:
    """Leave out what is no regular file, and the empty ones that handlers lock."""
    paths = {name: Path(folder, name) for name in names}
    return {name for name, path in paths.items() if not path.is_dir() and not (path.is_file() and path.stat().st_size)}
