"""Exit codes: what a process says with its last word, and what follows from it."""

from os import EX_CONFIG, EX_SOFTWARE, EX_TEMPFAIL
from typing import Final

#: Asked to stop, and stopped: also when jobs had to be interrupted or killed for it (the log says so).
#: Of a worker: no respawn while the node stops, at once otherwise.
OK: Final = 0

#: A command of the `qworker` tool could not do all it was asked for: an id was not found, a job not retriable; a
#: node with --burst has put back jobs of tasks it does not know.
FAILURE: Final = 1

#: The command line is wrong; click's own code.
USAGE: Final = 2

#: A bug in qworker's own code. Of a worker: respawned with backoff; of the supervisor: the service manager restarts it.
SOFTWARE: Final = EX_SOFTWARE  # 70

#: Could not start for now, for instance because the database is away. Of a child: respawned with backoff, for ever.
TEMPFAIL: Final = EX_TEMPFAIL  # 75

#: Can never work as it is: settings, application or schema. Of a child before its first READY: the whole node stops
#: with the same code, and the service manager does not restart it (RestartPreventExitStatus=2 78).
CONFIG: Final = EX_CONFIG  # 78

#: A worker that has done its share (jobs, memory) or was interrupted: replaced at once, and no crash.
RECYCLE: Final = 80
