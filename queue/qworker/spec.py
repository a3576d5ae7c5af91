"""The specification of a job: everything that is stored besides its arguments and its key."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from qworker.options import UNSET, Options
from qworker.retry import Retry


@dataclass(frozen=True)
class JobSpec:
    """A task's defaults merged with the options, in the form that is stored."""

    task: str
    queue: str
    priority: int
    #: JSON text of the options that were overridden for this job.
    overrides: str | None
    tags: tuple[str, ...] | None
    #: Seconds to wait; at most one of delay and run_at is set.
    delay: float | None
    run_at: datetime | None
    #: When the job is cancelled if it was not started: seconds after enqueueing, or a datetime.
    expires: float | datetime | None
    #: The unique key; True derives it from the arguments.
    unique: str | bool
    #: Seconds for which the key is taken; None: while the job is unfinished.
    unique_seconds: float | None
    #: JSON text of what is noted about the origin of the job. An empty object is for the SQL function only, see
    #: `0001_initial.sql`, and stored where that costs nothing.
    meta: str | None = None

    @classmethod
    def of(cls, task: str, defaults: Options, overrides_given: Options) -> "JobSpec":
        """Return the specification; `timeout` and `retry` are stored only if they were set for this job."""
        options = defaults.merge(overrides_given)
        overrides: dict[str, Any] = {}
        if overrides_given.timeout is not UNSET:
            overrides["timeout"] = "none" if overrides_given.timeout is None else overrides_given.timeout
        if isinstance(overrides_given.retry, Retry):
            overrides["retry"] = overrides_given.retry.to_json()
        return cls(
            task=task,
            queue=_or(options.queue, "default"),
            priority=_or(options.priority, 5),
            overrides=json.dumps(overrides) if overrides else None,
            tags=_or(options.tags, None) or None,
            delay=_or(options.delay, None),
            run_at=_or(options.run_at, None),
            expires=_or(options.expires, None),
            unique=_or(options.unique, options.unique_for is not UNSET),
            unique_seconds=_or(options.unique_for, None),
        )

    @property
    def timed(self) -> bool:
        """Whether the job has a start time or an expiry time."""
        return not (self.delay is None and self.run_at is None and self.expires is None)

    @property
    def keeps_meta(self) -> bool:
        """Whether something is noted that has to be stored."""
        return self.meta is not None and self.meta != "{}"

    def key_of(self, args: Mapping[str, Any]) -> str | None:
        """Return the unique key of a job with these arguments, or None."""
        if not self.unique:
            return None
        return _fingerprint(args) if self.unique is True else self.unique

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """Return the parameters for the statements; times are seconds since 1970."""
        lasting = isinstance(self.expires, float)
        return {
            "task": self.task,
            "queue": self.queue,
            "priority": self.priority,
            "overrides": self.overrides,
            "tags": None if self.tags is None else list(self.tags),
            "delay": self.delay,
            "run_at": None if self.run_at is None else self.run_at.timestamp(),
            "expires": self.expires if lasting else None,
            "expires_at": self.expires.timestamp() if isinstance(self.expires, datetime) else None,
            "period": self.unique_seconds,
            "meta": self.meta,
            "at": None,
        }

    @cached_property
    def values(self) -> tuple[bytes | None, ...] | None:
        """Return task, queue, priority and overrides as text; None if the job has a time, a key, tags or meta."""
        if self.unique or self.timed or self.tags or self.keeps_meta:
            return None
        overrides = None if self.overrides is None else self.overrides.encode()
        return self.task.encode(), self.queue.encode(), str(self.priority).encode(), overrides


def _fingerprint(args: Mapping[str, Any]) -> str:
    """Return the unique key that is derived from the arguments, independent of their order."""
    text = json.dumps(args, sort_keys=True, separators=(",", ":"))
    return "args:" + hashlib.sha256(text.encode()).hexdigest()


def _or(value: Any, default: Any) -> Any:
    return default if value is UNSET else value
