"""What every job must find in its process, whatever the jobs before it have changed."""

from qworker.claims import ClaimedJob
from qworkerd import log
from qworkerd.process.descriptors import fill_standard
from qworkerd.process.environment import Environment
from qworkerd.worker.dispositions import Dispositions


class ProcessState:
    """The standard descriptors, the variables of libpq, and how the process answers signals."""

    def __init__(self, environment: Environment, dispositions: Dispositions) -> None:
        self._environment = environment
        self._dispositions = dispositions
        self._log = log.get()

    def restore(self, job: ClaimedJob) -> bool:
        """Restore what differs after a job; return whether a signal may have been lost."""
        fill_standard()
        if changed := self._environment.restore():
            self._log.warning("environment.restored", job=job.id, task=job.task, changed=changed,
                              hint="qworker's connections would follow these variables")  # fmt: skip
        return self._dispositions.restore(job.id, job.task)
