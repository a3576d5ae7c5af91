"""Find a pyproject.toml that can be trusted: it names code to import and a server to which a password is sent."""

import grp
import os
import pwd
import stat
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from qworker.errors import ConfigurationError

NAME: Final = "pyproject.toml"
#: A directory that contains one of these is the root of a project; directories above it are not searched.
ROOTS: Final = (".git", ".hg", ".svn", ".jj")
#: Maximum size of a file (bytes).
MAX_BYTES: Final = 4 << 20


@dataclass(frozen=True)
class Project:
    """The [tool.qworker] table that applies, and the files that were ignored."""

    #: The location of the table for messages; empty if there is none.
    origin: str = ""
    #: The contents of the table, with dashes in names replaced by underscores.
    table: dict[str, object] = field(default_factory=dict)
    #: Why each ignored file was ignored.
    ignored: tuple[str, ...] = ()


def find(directory: Path) -> Project:
    """Find the nearest [tool.qworker] between a directory and the root of its project or the home directory.

    A file that other users can change is ignored. The search stops at a directory that other users can change, because
    they could make this process run any code. Raises ConfigurationError if a trusted file is not valid TOML.
    """
    home, ignored = _home(), list[str]()
    for folder in (directory, *directory.parents):
        path = folder / NAME
        # The name may refer to a symbolic link, a pipe or a device, so the checks are made on the open file.
        reason = _reason_to_distrust(folder.stat)
        if reason is None:
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                descriptor = -1
            if descriptor >= 0:
                with os.fdopen(descriptor, "rb") as file:
                    reason = _reason_to_distrust(partial(os.fstat, descriptor))
                    if reason is None and stat.S_ISREG(os.fstat(descriptor).st_mode):
                        table = _read(path, file.read(MAX_BYTES))
                        if table is not None:
                            return Project(f"[tool.qworker] in {path}", table, tuple(ignored))
                if reason is not None:
                    ignored.append(f"{path} is ignored: it {reason}")
        else:
            if path.is_file():
                ignored.append(f"{path} is ignored: its directory {reason}")
            break
        if folder == home or any((folder / root).exists() for root in ROOTS):
            break
    return Project(ignored=tuple(ignored))


def _read(path: Path, text: bytes) -> dict[str, object] | None:
    try:
        table = tomllib.loads(text.decode()).get("tool", {}).get("qworker")
    except (ValueError, AttributeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    return {str(key).replace("-", "_"): value for key, value in table.items()} if isinstance(table, dict) else None


def _reason_to_distrust(get_stat: Callable[[], os.stat_result]) -> str | None:
    """Return why other users could change a file or directory; None if only root and the caller can."""
    try:
        found = get_stat()
    except OSError as error:
        return f"cannot be examined ({error.strerror})"
    if found.st_uid not in (0, os.geteuid()):
        return f"belongs to {_user(found.st_uid)}, neither to root nor to {_user(os.geteuid())}"
    if found.st_mode & stat.S_IWOTH:
        return "is writable by everyone"
    if found.st_mode & stat.S_IWGRP and not _private(found.st_gid, found.st_uid):
        return f"is writable by the group {_group(found.st_gid)}"
    return None


def _private(gid: int, owner: int) -> bool:
    """Return whether the owner is the only member of a group: many systems have a group per user and umask 002."""
    try:
        group, name = grp.getgrgid(gid), pwd.getpwuid(owner).pw_name
    except KeyError:
        return False
    return group.gr_name == name and set(group.gr_mem) <= {name}


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # an account without an entry
        return None


def _user(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (user {uid})"
    except KeyError:
        return f"user {uid}"


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
