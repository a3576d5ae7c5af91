"""When a failed attempt is followed by another, and after how long."""

import math
import random as _random
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Self, TypeAlias

from qworker.errors import PermanentError, TransientError

ErrorKind: TypeAlias = type[BaseException] | str

#: A retry policy cannot ask for more runs than this.
MAX_ATTEMPTS = 1_000_000
#: Nor for a longer pause: ten years, in seconds.
MAX_BACKOFF = 315_576_000.0


@dataclass(frozen=True, slots=True)
class Retry:
    """A policy for attempts that went wrong.

    Attempt n is followed by a pause of `backoff * factor ** (n - 1)` seconds, at most `cap`, give or take `jitter`.
    Errors are named by their classes or by dotted names ("requests.exceptions.ConnectionError"; a built-in one by its
    bare name); subclasses count. `PermanentError` is never followed by another attempt.
    """

    #: Runs in all: 1 = never again.
    attempts: int = 3
    #: Seconds before the second attempt; 0 = at once.
    backoff: float = 15.0
    #: What each further pause is multiplied by; 1 = always the same.
    factor: float = 2.0
    #: Longest pause in seconds, before jitter.
    cap: float = 3600.0
    #: Share of a pause by which chance makes it shorter or longer, 0 to 1: jobs that failed together come back apart.
    jitter: float = 0.1
    #: Errors that end the job at once.
    never_on: Iterable[ErrorKind] = ()
    #: If not empty, all other errors end the job at once; `TransientError` never does.
    only_on: Iterable[ErrorKind] = ()

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int):
            raise TypeError(f"Retry: attempts is a number of runs (1 = never again), not {self.attempts!r}")
        if not 1 <= self.attempts <= MAX_ATTEMPTS:
            raise ValueError(f"Retry: attempts counts all runs and is 1 (never again) or more, not {self.attempts}")
        self._check("backoff", 0, MAX_BACKOFF, "seconds, 0 = at once")
        self._check("factor", 1, 1000, "1 = always the same pause")
        self._check("cap", 0, MAX_BACKOFF, "seconds")
        self._check("jitter", 0, 1, "a share: 0.1 = ten per cent")
        # Names survive JSON, and compare equal after it.
        object.__setattr__(self, "never_on", _names("never_on", self.never_on))
        object.__setattr__(self, "only_on", _names("only_on", self.only_on))

    @classmethod
    def of(cls, policy: "Retry | int | bool") -> "Retry":
        """Return the policy meant by `retry=`: a Retry, a number of attempts, or False for one attempt alone."""
        if isinstance(policy, Retry):
            return policy
        if policy is False:
            return cls(attempts=1)
        if isinstance(policy, bool) or not isinstance(policy, int):
            raise TypeError(f"retry takes Retry(...), a number of attempts, or False (one attempt), not {policy!r}")
        return cls(attempts=policy)

    def delay(self, attempt: int, random: Callable[[], float] = _random.random) -> float:
        """Return the seconds to wait after the given attempt (from 1); random draws from 0 to 1."""
        try:
            pause = min(self.cap, self.backoff * self.factor ** max(0, attempt - 1))
        except OverflowError:
            pause = self.cap
        return pause * (1 + self.jitter * (2 * random() - 1))

    def allows(self, error: BaseException) -> bool:
        """Tell whether such an error may be followed by another attempt, the count left aside."""
        kinds = {dotted(kind) for kind in type(error).__mro__}
        if isinstance(error, PermanentError) or not kinds.isdisjoint(self.never_on):
            return False
        return not self.only_on or isinstance(error, TransientError) or not kinds.isdisjoint(self.only_on)

    def to_json(self) -> dict[str, Any]:
        """Return the policy as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Return the policy of a JSON object; fields that a newer version wrote are left out."""
        known = {name: fields[name] for name in cls.__dataclass_fields__ if name in fields}
        return cls(**known)

    def _check(self, name: str, least: float, most: float, meaning: str) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"Retry: {name} is a number ({meaning}), not {value!r}")
        if not (math.isfinite(value) and least <= value <= most):
            raise ValueError(f"Retry: {name} is from {least:g} to {most:g} ({meaning}), not {value!r}")


def dotted(kind: type) -> str:
    """Return the name by which a class of errors is meant; built-in ones go without their module."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _names(field: str, kinds: ErrorKind | Iterable[ErrorKind]) -> tuple[str, ...]:
    return tuple(_name(field, kind) for kind in ([kinds] if isinstance(kinds, str | type) else kinds))


def _name(field: str, kind: ErrorKind) -> str:
    if isinstance(kind, str) and kind and all(part.isidentifier() for part in kind.split(".")):
        return kind.removeprefix("builtins.")
    if isinstance(kind, type) and issubclass(kind, BaseException):
        return dotted(kind)
    raise TypeError(f"Retry: {field} takes exception classes or their dotted names, not {kind!r}")
