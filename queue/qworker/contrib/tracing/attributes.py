"""The names of attributes and spans.

Those of the semantic conventions for messaging are in development: these are of version 1.44, whatever version of the
SDK is installed. https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/
"""

SYSTEM = "messaging.system"
OPERATION_NAME = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
DESTINATION = "messaging.destination.name"
MESSAGE_ID = "messaging.message.id"
RETRIES = "messaging.message.retry.count"
MESSAGE_COUNT = "messaging.batch.message_count"
FUNCTION = "code.function.name"
ERROR_TYPE = "error.type"

TASK = "qworker.task"
ATTEMPT = "qworker.attempt"
#: Seconds from enqueueing to the start of this attempt: delays and earlier attempts are included.
AGE = "qworker.age_seconds"
#: Whether another job held the unique key, and none was stored.
DUPLICATE = "qworker.duplicate"
SCHEDULE = "qworker.schedule"
HOOK = "qworker.failure_hook"
#: Why the process of an attempt has ended: "signal:KILL", "timeout".
CAUSE = "qworker.cause"
#: How an attempt has ended that did not fail: "snoozed", "released", "cancelled".
OUTCOME = "qworker.outcome"

EXCEPTION_EVENT = "exception"
EXCEPTION_TYPE, EXCEPTION_MESSAGE = "exception.type", "exception.message"
EXCEPTION_STACKTRACE = "exception.stacktrace"


def enqueue_span(task: str) -> str:
    """Return the name of the span around enqueueing."""
    return f"enqueue {task}"


def run_span(task: str) -> str:
    """Return the name of the span around an attempt."""
    return f"run {task}"


def publishing(task: str, queue: str) -> dict[str, str]:
    """Return the attributes of a span around enqueueing."""
    return {
        SYSTEM: "qworker", OPERATION_NAME: "enqueue", OPERATION_TYPE: "send", DESTINATION: queue, TASK: task
    }  # fmt: skip


def processing(job: int, task: str, queue: str, attempt: int) -> dict[str, str | int]:
    """Return the attributes of a span around an attempt."""
    return {
        SYSTEM: "qworker", OPERATION_NAME: "run", OPERATION_TYPE: "process", DESTINATION: queue, MESSAGE_ID: str(job),
        TASK: task, ATTEMPT: attempt, RETRIES: attempt - 1,
    }  # fmt: skip
