"""The rules that apply to a job: those of its task, changed by its overrides, limited by the worker's settings."""

import json
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from qworker import Retry, Task
from qworker.options import MAX_SECONDS
from qworker.task import UNSET
from qworkerd import log
from qworkerd.config.settings import Settings


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules for one job."""

    retry: Retry
    #: Seconds a handler may run; infinite for no limit.
    timeout: float
    #: Maximum number of attempts.
    max_attempts: int
    #: Seconds after which a running job is reported as slow; infinite to disable it.
    slow_after: float


class Policies:
    """Determines the rules for jobs; those of a task are computed once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        #: The rules of tasks whose jobs were looked up, by name; they apply to a job without overrides.
        self.by_task: dict[str, Policy] = {}
        self._log = log.get()

    def find(self, task: Task[..., Any] | None, overrides: str | None) -> Policy:
        """Return the rules for a job; a job of an unknown task has the defaults."""
        name = task.name if task else ""
        policy = self.by_task.get(name)
        if policy is None:
            policy = self.by_task[name] = self._of(task)
        if not overrides:
            return policy
        try:
            return self._apply(policy, json.loads(overrides))
        except Exception as error:  # noqa: BLE001 - a hand-edited row must stop neither worker nor scheduler
            self._log.warning("job.bad_overrides", task=name, overrides=overrides[:500], error=str(error),
                              hint="the overrides are ignored; the rules of the task apply")  # fmt: skip
            return policy

    def _of(self, task: Task[..., Any] | None) -> Policy:
        settings = self._settings
        retry = task.retry if task is not None else Retry()
        timeout = settings.timeout if task is None or task.timeout is UNSET else task.timeout
        slow = settings.slow_after if task is None or task.slow_after is UNSET else task.slow_after
        return Policy(
            retry=retry, timeout=self._limit(timeout), max_attempts=self._cap(retry), slow_after=_seconds(slow)
        )

    def _apply(self, policy: Policy, overrides: dict[str, Any]) -> Policy:
        retry, timeout = policy.retry, policy.timeout
        if "retry" in overrides:
            retry = Retry.from_json(overrides["retry"])
        if "timeout" in overrides:
            timeout = inf if overrides["timeout"] == "none" else float(overrides["timeout"])
            if not 0 < timeout <= MAX_SECONDS and overrides["timeout"] != "none":  # also rejects NaN
                raise ValueError(f"timeout is {timeout}")
        return replace(policy, retry=retry, timeout=self._limit(timeout), max_attempts=self._cap(retry))

    def _limit(self, timeout: Any) -> float:
        """Return a timeout in seconds; infinite with --inline, so that a job can stop in a debugger."""
        return inf if self._settings.inline else _seconds(timeout)

    def _cap(self, retry: Retry) -> int:
        cap = self._settings.max_attempts
        return retry.attempts if cap is None else min(cap, retry.attempts)


def _seconds(seconds: Any) -> float:
    return inf if seconds is None else float(seconds)
