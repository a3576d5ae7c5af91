"""Undoes changes that handlers have made to their process."""

from qworker.claims import ClaimedJob
from qworkerd import log
from qworkerd.process.descriptors import fill_standard
from qworkerd.process.environment import Environment
from qworkerd.worker.dispositions import Dispositions
from qworkerd.worker.limits import Limits


class ProcessState:
    """The standard descriptors, the variables of libpq, the limits and the signal handlers of a worker."""

    def __init__(self, environment: Environment, dispositions: Dispositions) -> None:
        self._environment = environment
        self._dispositions = dispositions
        self._limits = Limits()
        self._reported: set[str] = set()
        self._log = log.get()

    def record(self) -> None:
        """Record the limits that the application has set; the start hooks of the application have run."""
        self._limits.record()

    def restore(self, job: ClaimedJob) -> bool:
        """Undo the changes of a job; return whether a signal may have been lost."""
        if (changed := self._limits.restore()) and job.task not in self._reported:
            self._reported.add(job.task)
            self._log.warning("limits.restored", job=job.id, task=job.task, changed=changed,
                              hint="they would end the process during another job")  # fmt: skip
        fill_standard()  # after the limit of open files
        if changed := self._environment.restore():
            self._log.warning("environment.restored", job=job.id, task=job.task, changed=changed,
                              hint="these variables would apply to qworker's connections, too")  # fmt: skip
        return self._dispositions.restore(job.id, job.task)
