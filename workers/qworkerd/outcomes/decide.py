"""Decide what follows a failed attempt: the handler raised an exception, or its worker died."""

import math
from collections import deque
from typing import Any

from qworker.context import RunningJob
from qworker.errors import (
    CancelInterrupt,
    Interrupt,
    PermanentError,
    ShutdownInterrupt,
    Snooze,
    TimeoutInterrupt,
    TransientError,
)
from qworker.job import JobState
from qworker.recovery import HeldJob
from qworker.retry import MAX_BACKOFF
from qworkerd import log
from qworkerd.config.policy import Policy
from qworkerd.log.redaction import mask_and_shorten
from qworkerd.log.tracebacks import format_error, message_of, name_of
from qworkerd.outcomes.origin import cause_of, frame_of
from qworkerd.outcomes.outcome import AfterDeath, Crashed, Failed, Lost, Outcome, Released, Retried, Snoozed, Terminated
from qworkerd.outcomes.record import error_record, identify
from qworkerd.shared.cause import Cause

#: Maximum length of a stored message, traceback and class name (characters).
MAX_MESSAGE, MAX_TRACEBACK, MAX_NAME = 2_000, 8_000, 200
#: The number of frames of each traceback that are kept, from its end.
_FRAMES = -40
#: Maximum number of exceptions that are searched for an interrupt.
_MAX_EXCEPTIONS = 1_000


def describe(error: BaseException, attempt: int, cause: str | None = None) -> dict[str, Any]:
    """Return the record of an error that is stored: values of limited size without passwords. Never raises an error."""
    return error_record(
        _storable(name_of(type(error))[:MAX_NAME]),
        _storable(mask_and_shorten(message_of(error))[:MAX_MESSAGE]),
        cause,
        traceback=_storable(mask_and_shorten(format_error(error, _FRAMES))[-MAX_TRACEBACK:]),
        attempt=attempt,
    )


def describe_failure(error: BaseException, task: str, attempt: int) -> dict[str, Any]:
    """Return the record of an exception that counts as an error of the task, with the group to which it belongs.

    An exception group belongs to the group of its first exception: its own message only counts them.
    """
    record = describe(error, attempt)
    cause = cause_of(error)
    if cause is error:
        return identify(record, task, frame=frame_of(error))
    kind = f"{record['type']}[{name_of(type(cause))}]"[:MAX_NAME]
    message = mask_and_shorten(message_of(cause))[:MAX_MESSAGE]
    return identify(
        record, task, kind=_storable(kind), message=_storable(message), frame=frame_of(cause) or frame_of(error)
    )


def _storable(text: str) -> str:
    """Replace the characters that PostgreSQL cannot store in text: NUL and surrogates."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def interrupt_of(
    error: BaseException, *, sent: type[Interrupt] | None = None, timed_out: bool = False
) -> Interrupt | None:
    """Return the interrupt that ended a handler, or None.

    sent: the interrupt that the worker has raised in this job because of a signal; timed_out: its timeout has passed.
    The interrupt is then also searched for in exception groups, causes and contexts: asyncio.TaskGroup wraps it, and
    `raise ... from` or a failing `finally` hides it. The outermost one is returned.

    An error that was raised later than in the `except` block has no trace of the interrupt. After a signal it counts as
    its consequence, unless it is a PermanentError: a shutdown must not make a job fail.
    """
    if isinstance(error, Interrupt) or (sent is None and not timed_out):
        return error if isinstance(error, Interrupt) else None
    found = _search(error)
    if found is None and sent is not None and not isinstance(error, PermanentError):
        return sent()
    return found


def _search(error: BaseException) -> Interrupt | None:
    waiting, seen = deque([error]), {id(error)}
    while waiting and len(seen) < _MAX_EXCEPTIONS:
        found = waiting.popleft()
        if isinstance(found, Interrupt):
            return found
        for part in _parts(found):
            if isinstance(part, BaseException) and id(part) not in seen:
                seen.add(id(part))
                waiting.append(part)
    return None


def _parts(error: BaseException) -> list[object]:
    try:
        parts: list[object] = [*error.exceptions[:_MAX_EXCEPTIONS]] if isinstance(error, BaseExceptionGroup) else []
        parts += error.__cause__, error.__context__
    except BaseException:  # noqa: BLE001 - an application's class may have redefined these attributes
        parts = []
    return parts


def decide(
    error: BaseException, job: RunningJob, policy: Policy, *, hook: bool, duration: float,
    sent: type[Interrupt] | None = None, timed_out: bool = False,
) -> Outcome:  # fmt: skip
    """Decide the outcome of an attempt that raised an exception.

    sent: the interrupt that the worker has raised in it because of a signal; timed_out: its timeout has passed.
    """
    attempt = job.attempt
    if (snooze := _snooze(error)) is not None:
        return Snoozed(min(snooze.seconds, MAX_BACKOFF))
    interrupt = interrupt_of(error, sent=sent, timed_out=timed_out)
    if isinstance(interrupt, ShutdownInterrupt) and sent is not None:
        return Released()
    if isinstance(interrupt, CancelInterrupt):
        return Terminated(JobState.CANCELLED, duration, describe(error, attempt, Cause.CANCELLED))
    if isinstance(interrupt, TimeoutInterrupt):
        record = describe(error, attempt, Cause.TIMEOUT)
        record["type"] = name_of(type(interrupt))
        record["message"] = f"still running after {policy.timeout:g} s"
        identify(record, job.task)  # without a frame: where the timeout interrupts the handler is accidental
    else:
        record = describe_failure(error, job.task, attempt)
    if attempt >= policy.max_attempts or not (interrupt is not None or _allows(policy, error)):
        return Failed(record, hook, duration=duration)
    return Retried(_retry_delay(error, job, policy), record, duration=duration)


def decide_crash(
    job: HeldJob, policy: Policy, cause: Cause, error: dict[str, Any], *, ran: bool, hook: bool, max_crashes: int
) -> AfterDeath:
    """Decide what follows for a job that may have caused the death of its worker, for a cause that is counted.

    ran: whether its handler was running. Otherwise the job had ended, and its outcome was not stored; such a job may
    have stalled the worker, too.
    """
    stalled = cause is Cause.STALLED
    if job.cancelled and not (stalled and ran):
        return Terminated(JobState.CANCELLED, 0.0, error)
    if cause.counts_loss and (ran or not stalled):
        return Lost(error)
    if job.crashes + 1 >= max_crashes or job.attempt >= policy.max_attempts:
        return Failed(error, hook, crashes=1)
    return Crashed(policy.retry.delay(job.attempt) if cause is Cause.TIMEOUT else 0.0, error)


def _snooze(error: BaseException) -> Snooze | None:
    """Return the Snooze that ended a handler, even if it is the only exception of a group (asyncio.TaskGroup)."""
    for _ in range(_MAX_EXCEPTIONS):
        if not isinstance(error, BaseExceptionGroup) or len(error.exceptions) != 1:
            break
        error = error.exceptions[0]
    return error if isinstance(error, Snooze) else None


def _allows(policy: Policy, error: BaseException) -> bool:
    """Return whether the policy allows another attempt after this error."""
    try:
        return policy.retry.allows(error)
    except BaseException:  # noqa: BLE001 - a metaclass of the application may raise in isinstance()
        return not policy.retry.only_on


def _retry_delay(error: BaseException, job: RunningJob, policy: Policy) -> float:
    """Return the delay that the handler has requested, if it is valid, or else the policy's."""
    requested: object = None
    if isinstance(error, TransientError):
        try:
            # A subclass may not call TransientError.__init__, or may define a property.
            requested = getattr(error, "retry_after", None)
        except BaseException:  # noqa: BLE001 - a property of the application
            requested = None
    if isinstance(requested, int) or (isinstance(requested, float) and math.isfinite(requested)):
        return min(max(0.0, requested), MAX_BACKOFF)
    try:
        return policy.retry.delay_after(job, error)
    except BaseException as broken:  # noqa: BLE001 - `delays` is a function of the application
        log.get().warning("job.bad_delay", task=job.task, error=f"{name_of(type(broken))}: {message_of(broken)}",
                          hint="the backoff applies: correct the function that Retry(delays=...) names")  # fmt: skip
        return policy.retry.delay(job.attempt)
