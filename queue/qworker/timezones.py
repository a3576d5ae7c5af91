"""The version of the database of time zones from which this process reads its zones."""

import re
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from zoneinfo import TZPATH

_VERSION = re.compile(r"[0-9]{4}[a-z]{1,2}")
#: Files that name the version at their beginning, and the number of characters that are read.
_FILES, _HEAD = ("tzdata.zi", "+VERSION"), 200


def timezone_version() -> str | None:
    """Return the version, such as "2025b"; None if the system does not tell it.

    zoneinfo reads zones from the first directory of its path that has them, and else from the package tzdata.
    """
    for folder in map(Path, TZPATH):
        if (folder / "UTC").exists():
            return next(filter(None, map(_version_in, (folder / name for name in _FILES))), None)
    with suppress(ImportError):
        return str(import_module("tzdata").IANA_VERSION)
    return None


def _version_in(path: Path) -> str | None:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            found = _VERSION.search(file.read(_HEAD))
    except OSError:
        return None
    return None if found is None else found[0]
