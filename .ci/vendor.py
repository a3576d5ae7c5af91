"""Bring the files of others that the dashboard ships: python .ci/vendor.py.

Each comes from the archive of its npm package, whose integrity is checked against vendor.toml. Nothing is fetched when
qworker is installed: the files are part of the tree.
"""

import base64
import hashlib
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
VENDOR = Path(__file__).with_suffix(".toml")


def archive(package: dict[str, Any], folder: Path) -> Path:
    """Have npm download a package; exit if it is not the one that was looked at."""
    command = ["npm", "pack", "--silent", f"{package['name']}@{package['version']}"]
    name = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.split()[-1]
    path = folder / name
    kind, _, expected = package["integrity"].partition("-")
    found = base64.b64encode(hashlib.new(kind, path.read_bytes()).digest()).decode()
    if found != expected:
        sys.exit(f"{name} has the {kind} {found}, and not {expected} as in {VENDOR}")
    return path


def unpack(package: dict[str, Any], path: Path) -> None:
    """Write the files of a package that are needed."""
    target = ROOT / package["folder"]
    target.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path) as found:
        for name in package["files"]:
            member = found.extractfile(f"package/{name}")
            if member is None:
                sys.exit(f"{path.name} has no file {name}, or it is a folder")
            (target / Path(name).name).write_bytes(member.read())
            print(f"{target / Path(name).name}")


if __name__ == "__main__":
    with VENDOR.open("rb") as file, tempfile.TemporaryDirectory() as temporary:
        for each in tomllib.load(file)["shipped"]:
            unpack(each, archive(each, Path(temporary)))
