"""Exit codes of the processes, and how the supervisor and the service manager react to them."""

from os import EX_CONFIG, EX_SOFTWARE, EX_TEMPFAIL
from typing import Final

#: Stopped as requested, even if jobs had to be interrupted or killed (see the log). A worker with this code is replaced
#: at once, unless the node stops.
OK: Final = 0

#: A `qworker` command could not do everything requested: an id was not found, or a job cannot be retried. A node with
#: --burst has released jobs of unknown tasks.
FAILURE: Final = 1

#: The command line is invalid; this is click's exit code.
USAGE: Final = 2

#: A bug in qworker. A worker is replaced with backoff; the service manager restarts a supervisor.
SOFTWARE: Final = EX_SOFTWARE  # 70

#: Temporarily unable to start, for example without a database. A child is replaced with backoff, without limit.
TEMPFAIL: Final = EX_TEMPFAIL  # 75

#: Unable to run with these settings, application or schema. If a child exits with it before the node is ready, the node
#: exits with the same code, and the service manager does not restart it (RestartPreventExitStatus=2 78).
CONFIG: Final = EX_CONFIG  # 78

#: A worker that has reached a limit (jobs, memory) or was interrupted. It is replaced at once and has not crashed.
RECYCLE: Final = 80
