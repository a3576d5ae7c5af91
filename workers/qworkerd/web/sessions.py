"""Sessions of users: a signed cookie each, and a file of those that have been ended before their time."""

import fcntl
import hmac
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from time import time

from itsdangerous import BadSignature, URLSafeTimedSerializer

from qworker.errors import ConfigurationError
from qworkerd.web.users import User

#: How long a session lasts (seconds).
LIFETIME = 12 * 3_600
#: Appended to the name of the users file.
SUFFIX = ".ended"
#: Bytes of the file from which on sessions that would have ended by themselves are removed from it.
LARGE = 65_536


class Sessions:
    """The sessions of the users of a file.

    The key of a cookie is made from the hash of its user's password and from the rights, which only the file has: a new
    password or other rights end all sessions of the user, and neither a restart nor another process needs a secret of
    its own. A session that has been ended is in a file beside, which all processes with the same users file read.
    """

    def __init__(self, users_file: Path) -> None:
        self._path = users_file.with_name(users_file.name + SUFFIX)
        self._lock = threading.Lock()
        self._version: tuple[int, int, int] | None = None
        self._ended: frozenset[str] = frozenset()

    def begin(self, user: User) -> str:
        """Return the cookie of a new session."""
        return f"{user.name}|{_serializer(user).dumps([user.name, token_hex(16)])}"

    def user_of(self, cookie: str, users: Mapping[str, User]) -> User | None:
        """Return the user of a session that has not ended."""
        user, session = self._read(cookie, users)
        return None if session is None or session in self._known() else user

    def end(self, cookie: str, users: Mapping[str, User]) -> None:
        """End a session, with every copy of its cookie; raises OSError if that cannot be stored."""
        _, session = self._read(cookie, users)
        if session is None:
            return
        with os.fdopen(
            os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "r+", encoding="ascii"
        ) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_size > LARGE:
                kept = [line for line in file if float(line.split()[1]) > time()]
                file.seek(0)
                file.truncate()
                file.writelines(kept)
            file.write(f"{session} {time() + LIFETIME:.0f}\n")

    def _read(self, cookie: str, users: Mapping[str, User]) -> tuple[User | None, str | None]:
        name, _, signed = cookie.rpartition("|")
        user = users.get(name)
        if user is not None:
            with suppress(BadSignature, ValueError, TypeError):
                found, session = _serializer(user).loads(signed, max_age=LIFETIME)
                if found == user.name:
                    return user, str(session)
        return None, None

    def _known(self) -> frozenset[str]:
        """Return the sessions that have been ended; the file is read again when it has changed."""
        with self._lock:
            try:
                state = self._path.stat()
            except FileNotFoundError:
                return frozenset()
            except OSError as error:
                raise ConfigurationError(f"{self._path} cannot be read: {error.strerror}") from None
            version = (state.st_ino, state.st_size, state.st_mtime_ns)
            if version != self._version:
                try:
                    with self._path.open(encoding="ascii") as file:
                        # Another process may be about to write it anew, and it is empty for a moment.
                        fcntl.flock(file, fcntl.LOCK_SH)
                        self._ended = frozenset(line.split()[0] for line in file)
                except OSError as error:
                    raise ConfigurationError(f"{self._path} cannot be read: {error.strerror}") from None
                self._version = version
            return self._ended


def _serializer(user: User) -> URLSafeTimedSerializer:
    secret = "\0".join([user.hashed, *sorted(user.actions)])
    key = hmac.digest(secret.encode(), b"qworker web session", sha256)
    return URLSafeTimedSerializer(key, salt="qworker", signer_kwargs={"digest_method": sha256})
