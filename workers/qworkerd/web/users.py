"""Users and their passwords, and bearer tokens: files with a line for each, which hold hashes only."""

import hmac
import os
import secrets
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import scrypt, sha256
from pathlib import Path
from stat import S_IMODE
from typing import Any, Generic, TypeVar

from qworker.errors import ConfigurationError
from qworkerd.web.access import Access, Authorize, Redirect, rights_of

T = TypeVar("T")

#: Cost of a password: 16 MiB and about 50 ms. Bytes of salts and keys.
_N, _R, _P, _SALT, _KEY = 2**14, 8, 1, 16, 32
#: Maximum number of characters of a password and of a token.
MAX_PASSWORD, MAX_TOKEN = 1_000, 200
TOKEN_PREFIX = "qw_"  # noqa: S105 # begins each token, so that a leaked one is recognized
_OTHERS = 0o077


@dataclass(frozen=True, slots=True)
class User:
    """A line of the file: name:hash:rights."""

    name: str
    hashed: str
    actions: frozenset[str]

    def line(self, rights: str) -> str:
        """Return the line of the file."""
        return f"{self.name}:{self.hashed}:{rights}\n"


class _File(Generic[T]):
    """What a file says, read again when it has changed."""

    def __init__(self, path: Path, parse: Callable[[Path], T]) -> None:
        self.path = path
        self._parse = parse
        self._lock = threading.Lock()
        self._version: tuple[int, int, int] | None = None
        self._found: T | None = None

    def get(self) -> T:
        with self._lock:
            try:
                state = self.path.stat()
            except OSError as error:
                raise ConfigurationError(f"{self.path} cannot be read: {error.strerror}") from None
            version = (state.st_ino, state.st_size, state.st_mtime_ns)
            if self._found is None or version != self._version:
                if S_IMODE(state.st_mode) & _OTHERS:
                    raise ConfigurationError(f"{self.path} can be read by other users: chmod 600 {self.path}")
                self._found, self._version = self._parse(self.path), version
            return self._found


def read(path: Path) -> dict[str, User]:
    """Return the users of a file by name; raises ConfigurationError with the number of a line that is malformed."""
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, hashed, rights = line.strip().split(":")
            found[name] = User(name, hashed, rights_of(rights))
        except ValueError as error:
            raise ConfigurationError(f"line {number} of {path} is not name:hash:rights ({error})") from None
    return found


def write(path: Path, name: str, hashed: str, rights: str) -> None:
    """Add a user to the file, or replace it; the file is created for its owner alone, and replaced as a whole."""
    if not name or ":" in name or not name.isprintable() or name.startswith("#"):
        raise ValueError(f"{name!r} is not a name: use characters that are visible, and no colon")
    user = User(name, hashed, rights_of(rights))
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    kept = [line if line.endswith("\n") else f"{line}\n" for line in lines if line.split(":")[0] != name]
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write("".join([*kept, user.line(rights)]))
    temporary.replace(path)


def hash_password(password: str) -> str:
    """Return the hash of a password with a new salt."""
    if not password or len(password) > MAX_PASSWORD:
        raise ValueError(f"a password has from 1 to {MAX_PASSWORD:,} characters")
    salt = secrets.token_bytes(_SALT)
    return f"scrypt${_b64(salt)}${_b64(_derive(password, salt))}"


def check_password(user: User | None, password: str) -> bool:
    """Return whether the password is right; an unknown user takes as long as a known one."""
    hashed = _UNKNOWN_USER if user is None else user.hashed
    try:
        kind, salt, key = hashed.split("$")
        expected = b64decode(key)
        found = _derive(password[:MAX_PASSWORD], b64decode(salt))
    except ValueError:
        return False
    return hmac.compare_digest(found, expected) and kind == "scrypt" and user is not None


def new_token() -> tuple[str, str]:
    """Return a token and its hash. It is random, so that a plain hash is enough."""
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    return token, _token_hash(token)


def tokens(path: Path) -> Authorize:
    """Return a function that accepts requests with `Authorization: Bearer TOKEN` for a token of the file."""
    file = _File(path, lambda found: {user.hashed: user for user in read(found).values()})
    file.get()

    def authorize(environ: Mapping[str, Any]) -> Access | Redirect | None:
        scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "bearer" or len(token) > MAX_TOKEN:
            return None
        # Looked up by its hash, whose time says nothing of the token.
        user = file.get().get(_token_hash(token.strip()))
        return None if user is None else Access(user.name, user.actions, by_token=True)

    return authorize


def users(path: Path) -> Callable[[], dict[str, User]]:
    """Return a function that returns the users of a file as it is now; raises ConfigurationError at once."""
    file = _File(path, read)
    file.get()
    return file.get


def _token_hash(token: str) -> str:
    return "sha256$" + sha256(token.encode("utf-8", "replace")).hexdigest()


def _derive(password: str, salt: bytes) -> bytes:
    return scrypt(password.encode("utf-8", "surrogatepass"), salt=salt, n=_N, r=_R, p=_P, dklen=_KEY)


def _b64(value: bytes) -> str:
    return b64encode(value).decode()


_UNKNOWN_USER = f"scrypt${_b64(bytes(_SALT))}${_b64(bytes(_KEY))}"
