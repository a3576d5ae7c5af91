"""A job queue in the PostgreSQL you already run: declare tasks, enqueue jobs, look at them."""

from qworker.app import App
from qworker.context import current_job
from qworker.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    Interrupt,
    JobCancelled,
    JobFailed,
    JobInterrupted,
    JobNotFound,
    JobTimeout,
    JobWasCancelled,
    PayloadTooLarge,
    PermanentError,
    QworkerError,
    Refused,
    SchemaError,
    TransientError,
    UnknownTask,
)
from qworker.job import Job, JobState
from qworker.retry import Retry
from qworker.task import Task

__all__ = [
    "App",
    "ConfigurationError",
    "DatabaseUnavailable",
    "Interrupt",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobInterrupted",
    "JobNotFound",
    "JobState",
    "JobTimeout",
    "JobWasCancelled",
    "PayloadTooLarge",
    "PermanentError",
    "QworkerError",
    "Refused",
    "Retry",
    "SchemaError",
    "Task",
    "TransientError",
    "UnknownTask",
    "current_job",
]
