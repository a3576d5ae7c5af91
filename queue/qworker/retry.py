"""The policy that decides whether and when a failed attempt is retried."""

import math
import random as _random
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Self, TypeAlias

from qworker.backoff import Backoff
from qworker.errors import PermanentError, TransientError

ErrorKind: TypeAlias = type[BaseException] | str

#: Maximum number of attempts of a policy.
MAX_ATTEMPTS = 1_000_000
#: Maximum backoff of a policy in seconds: ten years.
MAX_BACKOFF = 315_576_000.0


@dataclass(frozen=True, slots=True)
class Retry:
    """A policy for failed attempts.

    The backoff after attempt n is `backoff * factor ** (n - 1)` seconds, at most `cap`, changed by up to `jitter`.
    Errors are given as classes or dotted names ("requests.exceptions.ConnectionError"; a built-in error without its
    module); subclasses match too. `PermanentError` is never retried.
    """

    #: Total number of attempts; 1 disables retries.
    attempts: int = 3
    #: Seconds before the second attempt; 0 retries at once.
    backoff: float = 15.0
    #: Factor between one backoff and the next; 1 keeps it constant.
    factor: float = 2.0
    #: Maximum backoff in seconds, before jitter.
    cap: float = 3600.0
    #: Random change of the backoff as a fraction, 0 to 1, so that jobs that failed together are retried apart.
    jitter: float = 0.1
    #: Errors that fail the job at once.
    never_on: Iterable[ErrorKind] = ()
    #: If not empty, all other errors except `TransientError` fail the job at once.
    only_on: Iterable[ErrorKind] = ()

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int):
            raise TypeError(f"Retry: attempts must be an integer (1 disables retries), not {self.attempts!r}")
        if not 1 <= self.attempts <= MAX_ATTEMPTS:
            raise ValueError(f"Retry: attempts must be from 1 (no retry) to {MAX_ATTEMPTS:,}, not {self.attempts}")
        self._check("backoff", 0, MAX_BACKOFF, "seconds, 0 retries at once")
        self._check("factor", 1, 1000, "1 keeps the backoff constant")
        self._check("cap", 0, MAX_BACKOFF, "seconds")
        self._check("jitter", 0, 1, "a fraction: 0.1 is ten percent")
        # Names can be stored as JSON and are equal when read again.
        object.__setattr__(self, "never_on", _names("never_on", self.never_on))
        object.__setattr__(self, "only_on", _names("only_on", self.only_on))

    @classmethod
    def of(cls, policy: "Retry | int | bool") -> "Retry":
        """Return the policy for a `retry=` option: a Retry, a number of attempts, or False for one attempt."""
        if isinstance(policy, Retry):
            return policy
        if policy is False:
            return cls(attempts=1)
        if isinstance(policy, bool) or not isinstance(policy, int):
            raise TypeError(f"retry takes Retry(...), a number of attempts, or False (one attempt), not {policy!r}")
        return cls(attempts=policy)

    def delay(self, attempt: int, random: Callable[[], float] = _random.random) -> float:
        """Return the backoff in seconds after the given attempt (from 1); random returns a number from 0 to 1."""
        delay = Backoff(self.backoff, self.cap, self.factor).delay(attempt)
        return delay * (1 + self.jitter * (2 * random() - 1))

    def allows(self, error: BaseException) -> bool:
        """Return whether this error may be retried, regardless of the number of attempts."""
        kinds = {dotted(kind) for kind in type(error).__mro__}
        if isinstance(error, PermanentError) or not kinds.isdisjoint(self.never_on):
            return False
        return not self.only_on or isinstance(error, TransientError) or not kinds.isdisjoint(self.only_on)

    def to_json(self) -> dict[str, Any]:
        """Return the policy as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Return the policy of a JSON object; unknown fields, written by a newer version, are ignored."""
        known = {name: fields[name] for name in cls.__dataclass_fields__ if name in fields}
        return cls(**known)

    def _check(self, name: str, least: float, most: float, meaning: str) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"Retry: {name} must be a number ({meaning}), not {value!r}")
        if not (math.isfinite(value) and least <= value <= most):
            raise ValueError(f"Retry: {name} must be from {least:g} to {most:g} ({meaning}), not {value!r}")


def dotted(kind: type) -> str:
    """Return the dotted name of an error class; that of a built-in error has no module."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _names(field: str, kinds: ErrorKind | Iterable[ErrorKind]) -> tuple[str, ...]:
    return tuple(_name(field, kind) for kind in ([kinds] if isinstance(kinds, str | type) else kinds))


def _name(field: str, kind: ErrorKind) -> str:
    if isinstance(kind, str) and kind and all(part.isidentifier() for part in kind.split(".")):
        return kind.removeprefix("builtins.")
    if isinstance(kind, type) and issubclass(kind, BaseException):
        return dotted(kind)
    raise TypeError(f"Retry: {field} takes exception classes or their dotted names, not {kind!r}")
