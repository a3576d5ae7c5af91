"""What follows from what a handler raised, and what is kept of it."""

import math
from collections import deque
from datetime import UTC, datetime
from typing import Any

from qworker.errors import CancelInterrupt, Interrupt, ShutdownInterrupt, Snooze, TimeoutInterrupt, TransientError
from qworker.retry import MAX_BACKOFF
from qworkerd.config.policy import Policy
from qworkerd.log.redaction import clip
from qworkerd.log.tracebacks import format_error, message_of, name_of
from qworkerd.outcomes.outcome import Failed, Outcome, Released, Retried, Snoozed, Terminated

#: How much of a message, of a traceback and of the name of a class is kept with the job (characters).
MESSAGE, TRACEBACK, NAME = 2_000, 8_000, 200
#: The last frames of each traceback are kept.
_FRAMES = -40
#: How many exceptions are searched for an interrupt.
_SEARCHED = 1_000


def describe(error: BaseException, attempt: int, cause: str | None = None) -> dict[str, Any]:
    """Return what is kept of an error: JSON that PostgreSQL takes, of bounded size, without passwords. Never raises."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "attempt": attempt,
        "type": _storable(name_of(type(error))[:NAME]),
        "message": _storable(clip(message_of(error))[:MESSAGE]),
        "traceback": _storable(clip(format_error(error, _FRAMES))[-TRACEBACK:]),
        "cause": cause,
    }


def _storable(text: str) -> str:
    """Replace what no text of PostgreSQL can hold: NUL, and halves of surrogate pairs."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def interrupt_of(error: BaseException, *, ours: bool) -> Interrupt | None:
    """Return the interrupt that ended a handler, None if none did.

    ours: whether we have interrupted this job. Then the interrupt is also looked for in the exception groups, causes
    and contexts of what the handler raised: asyncio.TaskGroup wraps it, `raise ... from` and a failing `finally` hide
    it. The outermost one is returned.
    """
    if isinstance(error, Interrupt) or not ours:
        return error if isinstance(error, Interrupt) else None
    waiting, seen = deque([error]), {id(error)}
    while waiting and len(seen) < _SEARCHED:
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
        parts: list[object] = [*error.exceptions[:_SEARCHED]] if isinstance(error, BaseExceptionGroup) else []
        parts += error.__cause__, error.__context__
    except BaseException:  # noqa: BLE001 - a class of the application's may have made something else of them
        parts = []
    return parts


def decide(
    error: BaseException, attempt: int, policy: Policy, *, hook: bool, duration: float, interrupted_by_us: bool = False,
    timed_out: bool = False,
) -> Outcome:  # fmt: skip
    """Decide what follows from what a handler raised.

    told: whether we have told it to end; timed_out: whether its timeout has struck.
    """
    if (snooze := _snooze(error)) is not None:
        return Snoozed(min(snooze.seconds, MAX_BACKOFF))
    interrupt = interrupt_of(error, ours=interrupted_by_us or timed_out)
    if isinstance(interrupt, ShutdownInterrupt) and interrupted_by_us:
        return Released()
    if isinstance(interrupt, CancelInterrupt):
        return Terminated("cancelled", duration, describe(error, attempt, "cancelled"))
    record = describe(error, attempt, "timeout" if isinstance(interrupt, TimeoutInterrupt) else None)
    if isinstance(interrupt, TimeoutInterrupt):
        record["type"] = name_of(type(interrupt))
        record["message"] = f"still running after {policy.timeout:g} s"
    if attempt >= policy.max_attempts or not (interrupt is not None or _allows(policy, error)):
        return Failed(record, hook)
    return Retried(_pause(error, attempt, policy), record)


def _snooze(error: BaseException) -> Snooze | None:
    """Return the snooze by which a handler was left, also through an asyncio.TaskGroup: as all that its group holds."""
    for _ in range(_SEARCHED):
        if not isinstance(error, BaseExceptionGroup) or len(error.exceptions) != 1:
            break
        error = error.exceptions[0]
    return error if isinstance(error, Snooze) else None


def _allows(policy: Policy, error: BaseException) -> bool:
    """Tell whether the policy lets such an error be followed by another attempt; a class may not tell its name."""
    try:
        return policy.retry.allows(error)
    except BaseException:  # noqa: BLE001 - a metaclass of the application's
        return not policy.retry.only_on


def _pause(error: BaseException, attempt: int, policy: Policy) -> float:
    """Return the pause a handler asks for, if it is one the database can add to its clock, or else the policy's."""
    asked: object = None
    if isinstance(error, TransientError):
        try:
            # A subclass may have forgotten to call TransientError.__init__, or have made a property of it.
            asked = getattr(error, "retry_after", None)
        except BaseException:  # noqa: BLE001 - its own code
            asked = None
    if isinstance(asked, int) or (isinstance(asked, float) and math.isfinite(asked)):
        return min(max(0.0, asked), MAX_BACKOFF)
    return policy.retry.delay(attempt)
