"""A job queue in the PostgreSQL you already run: declare tasks, enqueue jobs, inspect them."""

from qworker.actor import acting_as
from qworker.app import App
from qworker.context import current_job
from qworker.errors import (
    CancelInterrupt,
    ConfigurationError,
    DatabaseUnavailable,
    Interrupt,
    InvalidOperation,
    InvalidPayload,
    JobCancelled,
    JobFailed,
    JobNotFound,
    PayloadTooLarge,
    PermanentError,
    QworkerError,
    SchemaError,
    ShutdownInterrupt,
    TimeoutInterrupt,
    TransientError,
    UnknownTask,
)
from qworker.job import Job, JobState
from qworker.retry import Retry
from qworker.task import Task

__all__ = [
    "App",
    "CancelInterrupt",
    "ConfigurationError",
    "DatabaseUnavailable",
    "Interrupt",
    "InvalidOperation",
    "InvalidPayload",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobNotFound",
    "JobState",
    "PayloadTooLarge",
    "PermanentError",
    "QworkerError",
    "Retry",
    "SchemaError",
    "ShutdownInterrupt",
    "Task",
    "TimeoutInterrupt",
    "TransientError",
    "UnknownTask",
    "acting_as",
    "current_job",
]
