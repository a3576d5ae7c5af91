"""The options of a job: their types, checks and merging."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final, Literal, Self, TypedDict

from qworker.nearest import instead
from qworker.retry import Retry


class Unset(Enum):
    """The type of UNSET."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return "UNSET"

    def __bool__(self) -> Literal[False]:
        return False


#: The option was not given; the next default applies.
UNSET: Final = Unset.UNSET

#: The earliest time that the table of jobs can store.
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Longest delay, timeout or period: a hundred years, in seconds.
MAX_SECONDS = 3_155_760_000.0
#: The priorities of tasks, the first ones first.
PRIORITIES = range(10)
MAX_TAGS = 50
#: Characters of a queue's name or a tag, and of a unique key (an index entry holds 2,700 bytes).
MAX_NAME = 200
MAX_KEY = 400


#: What to write for an option of another library.
_ELSEWHERE = {
    "countdown": "delay=..., in seconds or as a timedelta",
    "eta": "run_at=..., an aware datetime",
    "run_after": "run_at=..., an aware datetime; run_after is an option of Django's tasks",
    "schedule_in": "delay=..., in seconds or as a timedelta",
    "schedule_at": "run_at=..., an aware datetime",
    "time_limit": "timeout=..., in seconds",
    "soft_time_limit": "timeout=..., in seconds: the handler is interrupted before its process is killed",
    "job_timeout": "timeout=..., in seconds",
    "max_retries": "retry=..., the number of all attempts, or a qworker.Retry",
    "max_attempts": "retry=..., the number of all attempts, or a qworker.Retry",
    "autoretry_for": "retry=qworker.Retry(...): all errors are retried except PermanentError",
    "retry_backoff": "retry=qworker.Retry(backoff=...), in seconds",
    "default_retry_delay": "retry=qworker.Retry(backoff=...), in seconds",
    "backoff": "retry=qworker.Retry(backoff=...), in seconds",
    "queue_name": "queue=...",
    "task_id": "unique=..., a key that only one unfinished job may hold",
    "job_id": "unique=..., a key that only one unfinished job may hold",
    "queueing_lock": "unique=..., a key that only one unfinished job may hold",
}


class OptionKwargs(TypedDict, total=False):
    """The options by name, as `.options()` takes them; see `Options`."""

    queue: str
    priority: int
    delay: float | timedelta
    run_at: datetime
    expires: float | timedelta | datetime
    timeout: float | timedelta | None
    retry: Retry | int | bool
    unique: str | bool
    unique_for: float | timedelta
    tags: Iterable[str]
    conn: Any


@dataclass(frozen=True, slots=True)
class Options:
    """The validated options of a job. Durations are seconds after enqueueing; times are aware datetimes."""

    #: Name of the queue: 1 to 200 printable characters without a comma.
    queue: str | Unset = UNSET
    #: 0 (first) to 9.
    priority: int | Unset = UNSET
    #: Seconds or timedelta to wait before the job may start; not together with run_at.
    delay: float | timedelta | Unset = UNSET
    #: When the job may start, as an aware datetime; not together with delay.
    run_at: datetime | Unset = UNSET
    #: When the job is cancelled if it was not started: seconds, timedelta, or an aware datetime.
    expires: float | timedelta | datetime | Unset = UNSET
    #: Seconds or timedelta that a handler may run; None disables the timeout.
    timeout: float | timedelta | Unset | None = UNSET
    #: Retry(...), a number of attempts, or False for one attempt.
    retry: Retry | int | bool | Unset = UNSET
    #: A key (up to 400 characters) that only one unfinished job of the task may hold; True derives it from the
    #: arguments.
    unique: str | bool | Unset = UNSET
    #: Seconds or timedelta for which the key is taken, whatever the job's state. Without `unique` it is derived from
    #: the arguments.
    unique_for: float | timedelta | Unset = UNSET
    #: Tags by which the job can be found, at most 50.
    tags: Iterable[str] | Unset = UNSET
    #: The connection on which the job is enqueued; None: one from the pool, even inside Django's atomic().
    conn: Any = UNSET

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            if value is not UNSET:
                object.__setattr__(self, name, check(name, value))
        if self.delay is not UNSET and self.run_at is not UNSET:
            raise TypeError(f"delay={self.delay!r} and run_at={self.run_at!r} exclude each other: pass one of them")
        if isinstance(self.expires, float) and isinstance(self.delay, float) and self.expires <= self.delay:
            raise ValueError(f"expires={self.expires!r} must exceed delay={self.delay!r}: the job would never run")
        if isinstance(self.expires, datetime) and isinstance(self.run_at, datetime) and self.expires <= self.run_at:
            raise ValueError(f"expires={self.expires} must be after run_at={self.run_at}: the job would never run")
        if self.unique is False and self.unique_for:
            raise TypeError(f"unique=False and unique_for={self.unique_for!r} exclude each other")

    @classmethod
    def of(cls, named: dict[str, Any]) -> Self:
        """Validate options given by name.

        Raises TypeError for an unknown name, a wrong type or options that exclude each other, ValueError for a wrong
        value.
        """
        known = [field.name for field in fields(cls)]
        for name in named:
            if name not in known:
                raise TypeError(f"unknown option {name!r}; {_instead(name, known)}")
        return cls(**named)

    def merge(self, other: "Options") -> "Options":
        """Return these options, overridden by those set in `other`."""
        given = {
            field.name: value for field in fields(other) if (value := getattr(other, field.name)) is not UNSET
        }  # fmt: skip
        # delay and run_at set the same thing: the later one replaces the earlier one.
        starts = {"delay": UNSET, "run_at": UNSET} if given.keys() & {"delay", "run_at"} else {}
        period = {"unique_for": UNSET} if other.unique is False else {}
        return replace(self, **(starts | period | given))


def _instead(name: str, known: list[str]) -> str:
    if name in _ELSEWHERE:
        return f"write {_ELSEWHERE[name]}"
    return instead(name, known)


def check_name(name: str, value: Any, max_length: int = MAX_NAME) -> str:
    """Check the name of a queue, a key or a tag."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {value!r}")
    if not value or len(value) > max_length or not value.isprintable():
        raise ValueError(f"{name} must have 1 to {max_length} printable characters, not {value[: max_length + 1]!r}")
    return value


def check_queue(name: str, value: Any) -> str:
    """Check the name of a queue."""
    queue = check_name(name, value)
    if "," in queue or queue != queue.strip():
        raise ValueError(
            f"{name} must not contain a comma or begin or end with a blank, which --queues could not express: {value!r}"
        )
    return queue


def check_move(queue: str | None = None, priority: int | None = None) -> None:
    """Check where jobs are to be moved."""
    if queue is None and priority is None:
        raise ValueError("name the queue or the priority to which the jobs are moved")
    if queue is not None:
        check_queue("queue", queue)
    if priority is not None:
        check_priority("priority", priority)


def check_priority(name: str, value: Any) -> int:
    """Check a priority."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer from 0 (first) to 9, not {value!r}")
    if not 0 <= value <= 9:  # noqa: PLR2004
        raise ValueError(f"{name} must be from 0 (first) to 9, not {value}")
    return value


def check_seconds(name: str, value: Any) -> float:
    """Check a duration and return its seconds."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} takes seconds or a timedelta, not {value!r}")
    if not 0 <= value <= MAX_SECONDS:  # rejects NaN too
        raise ValueError(f"{name} must be from 0 seconds to a hundred years, not {value!r}")
    return float(value)


def _period(name: str, value: Any) -> float:
    duration = check_seconds(name, value)
    if duration == 0:
        raise ValueError(f"{name} must be more than 0 seconds")
    return duration


def check_timeout(name: str, value: Any) -> float | None:
    """Check a timeout; None disables it."""
    if value is None:
        return None
    duration = check_seconds(name, value)
    if duration == 0:
        raise ValueError(f"{name}=0 would end every job before it starts; {name}=None disables it")
    return duration


def check_datetime(name: str, value: Any) -> datetime:
    """Check a point in time."""
    if not isinstance(value, datetime):
        raise TypeError(f"{name} takes an aware datetime, not {value!r}")
    if value.utcoffset() is None:
        raise ValueError(
            f"{name}={value!r} has no time zone; pass an aware datetime: datetime.now(UTC), "
            "value.replace(tzinfo=ZoneInfo('Europe/Berlin')), or value.astimezone() for local time"
        )
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{name}={value} is beyond the calendar in UTC") from error


def _expires(name: str, value: Any) -> float | datetime:
    if not isinstance(value, datetime):
        return _period(name, value)
    # The table cannot store a time before 1970; a job with an earlier expiry time has expired in either case.
    return max(check_datetime(name, value), _EPOCH)


def _unique(name: str, value: Any) -> str | bool:
    return value if isinstance(value, bool) else check_name(name, value, MAX_KEY)


def _tags(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list of strings, not {value!r}")
    tags = tuple(check_name(f"{name}[{at}]", tag) for at, tag in enumerate(value))
    if len(tags) > MAX_TAGS:
        raise ValueError(f"{name} has {len(tags)} tags, more than {MAX_TAGS}")
    return tags


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "queue": check_queue,
    "priority": check_priority,
    "delay": check_seconds,
    "run_at": check_datetime,
    "expires": _expires,
    "timeout": check_timeout,
    "retry": lambda _, value: Retry.of(value),
    "unique": _unique,
    "unique_for": _period,
    "tags": _tags,
}
