"""Undoes changes that handlers have made to their process."""

from qworker.claims import ClaimedJob
from qworkerd import log
from qworkerd.process.descriptors import fill_standard
from qworkerd.process.environment import Environment
from qworkerd.worker.dispositions import Dispositions


class ProcessState:
    """The standard descriptors, the variables of libpq, and the signal handlers of a worker."""

    def __init__(self, environment: Environment, dispositions: Dispositions) -> None:
        self._environment = environment
        self._dispositions = dispositions
        self._log = log.get()

    def restore(self, job: ClaimedJob) -> bool:
        """Undo the changes of a job; return whether a signal may have been lost."""
        fill_standard()
        if changed := self._environment.restore():
            self._log.warning("environment.restored", job=job.id, task=job.task, changed=changed,
                              hint="these variables would apply to qworker's connections, too")  # fmt: skip
        return self._dispositions.restore(job.id, job.task)
