"""The policy that decides whether and when a failed attempt is retried."""

import math
import random as _random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self, TypeAlias

from qworker.backoff import Backoff
from qworker.context import RunningJob
from qworker.errors import PermanentError, TransientError

ErrorKind: TypeAlias = type[BaseException] | str
#: `delay(job, error)` returns seconds, or None for the backoff.
DelayFunction: TypeAlias = Callable[[RunningJob, BaseException], float | None]

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
    #: Seconds before the next attempt, in place of the backoff: a mapping of errors, of which the most specific class
    #: counts (with jitter), or a function of the job and the error (None: the backoff). `TransientError.retry_after`
    #: comes first. A function cannot be stored with a job, so it is an option of a task and not of `.options()`.
    delays: Mapping[ErrorKind, float] | DelayFunction | None = field(default=None, hash=False)

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
        if self.delays is not None and not callable(self.delays):
            object.__setattr__(self, "delays", _seconds_by_name(self.delays))

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
        return self._with_jitter(Backoff(self.backoff, self.cap, self.factor).delay(attempt), random)

    def delay_after(self, job: RunningJob, error: BaseException, random: Callable[[], float] = _random.random) -> float:
        """Return the seconds to wait after an attempt that raised this error; raises what `delays` raises."""
        seconds: float | None = None
        if callable(self.delays):
            seconds = self.delays(job, error)
            if seconds is not None:
                _check_number("the result of delays", seconds, 0, MAX_BACKOFF, "seconds, or None for the backoff")
                return float(seconds)
        elif self.delays is not None:
            names = (dotted(kind) for kind in type(error).__mro__)
            seconds = next((self.delays[name] for name in names if name in self.delays), None)
        return self.delay(job.attempt, random) if seconds is None else self._with_jitter(seconds, random)

    def _with_jitter(self, seconds: float, random: Callable[[], float]) -> float:
        return seconds * (1 + self.jitter * (2 * random() - 1))

    def allows(self, error: BaseException) -> bool:
        """Return whether this error may be retried, regardless of the number of attempts."""
        kinds = {dotted(kind) for kind in type(error).__mro__}
        if isinstance(error, PermanentError) or not kinds.isdisjoint(self.never_on):
            return False
        return not self.only_on or isinstance(error, TransientError) or not kinds.isdisjoint(self.only_on)

    def to_json(self) -> dict[str, Any]:
        """Return the policy as a JSON object; raises TypeError if `delays` is a function."""
        if callable(self.delays):
            raise TypeError(
                "Retry: delays is a function, which cannot be stored with a job: pass a mapping of errors to seconds, "
                "or declare the task with @app.task(retry=...)"
            )
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Return the policy of a JSON object; unknown fields, written by a newer version, are ignored."""
        known = {name: fields[name] for name in cls.__dataclass_fields__ if name in fields}
        return cls(**known)

    def _check(self, name: str, least: float, most: float, meaning: str) -> None:
        _check_number(name, getattr(self, name), least, most, meaning)


def _check_number(name: str, value: Any, least: float, most: float, meaning: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"Retry: {name} must be a number ({meaning}), not {value!r}")
    if not (math.isfinite(value) and least <= value <= most):
        raise ValueError(f"Retry: {name} must be from {least:g} to {most:g} ({meaning}), not {value!r}")


def dotted(kind: type) -> str:
    """Return the dotted name of an error class; that of a built-in error has no module."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _names(option: str, kinds: ErrorKind | Iterable[ErrorKind]) -> tuple[str, ...]:
    return tuple(_name(option, kind) for kind in ([kinds] if isinstance(kinds, str | type) else kinds))


def _seconds_by_name(delays: Mapping[ErrorKind, float]) -> dict[ErrorKind, float]:
    if not isinstance(delays, Mapping):
        raise TypeError(f"Retry: delays takes a mapping of errors to seconds or a function(job, error), not {delays!r}")
    found: dict[ErrorKind, float] = {}
    for kind, seconds in delays.items():
        name = _name("delays", kind)
        _check_number(f"delays[{name}]", seconds, 0, MAX_BACKOFF, "seconds, 0 retries at once")
        found[name] = seconds
    return found


def _name(option: str, kind: ErrorKind) -> str:
    if isinstance(kind, str) and kind and all(part.isidentifier() for part in kind.split(".")):
        return kind.removeprefix("builtins.")
    if isinstance(kind, type) and issubclass(kind, BaseException):
        return dotted(kind)
    raise TypeError(f"Retry: {option} takes exception classes or their dotted names, not {kind!r}")
