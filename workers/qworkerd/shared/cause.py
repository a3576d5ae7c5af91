"""Why an attempt did not end by itself, and what that means for its job."""

from enum import StrEnum


class Cause(StrEnum):
    """The cause of an attempt that did not end by itself, as stored with the job."""

    #: The supervisor killed the worker after the job's timeout and grace period, or the worker interrupted the handler.
    TIMEOUT = "timeout"
    #: A thread of the worker stopped, possibly because the running handler held the GIL or replaced what it calls.
    STALLED = "stalled"
    #: The node could not renew its lease.
    LEASE = "lease"
    SUPERVISOR_LOST = "supervisor-lost"
    #: The node was killed in a shutdown.
    SHUTDOWN = "shutdown"
    #: The job was cancelled, or a worker died of the signal that cancels another job.
    CANCELLED = "cancelled"
    #: The kernel killed the worker for lack of memory.
    OOM = "oom"
    #: The worker died of a signal: "signal:SEGV".
    SIGNAL = "signal"
    #: The worker ended by itself: "exit:1".
    EXIT = "exit"
    #: The node that ran the job was declared dead.
    NODE_LOST = "node-lost"
    #: The row of the job cannot be read.
    UNREADABLE = "unreadable"
    #: The database has rejected the outcome of the attempt.
    REFUSED = "refused"

    @classmethod
    def of(cls, text: str) -> "Cause":
        """Return the cause that a stored text names; its detail follows a colon."""
        return cls(text.partition(":")[0])

    def detailed(self, detail: object) -> str:
        """Return the cause with its detail."""
        return f"{self}:{detail}"

    @property
    def counts_attempt(self) -> bool:
        """Whether the running job may have caused it: the attempt and the crash are counted."""
        return self in _COUNTS_ATTEMPT

    @property
    def counts_loss(self) -> bool:
        """Whether a loss is counted instead of the attempt, so that the number of repetitions is limited."""
        return self in _COUNTS_LOSS


_COUNTS_ATTEMPT = frozenset({Cause.TIMEOUT, Cause.OOM, Cause.SIGNAL, Cause.EXIT})
_COUNTS_LOSS = frozenset({Cause.STALLED, Cause.LEASE, Cause.SUPERVISOR_LOST})
