"""The file descriptors that a node needs: the three standard ones, and room for those of its own."""

import os
import resource
import sys

from qworker.errors import ConfigurationError

#: How many files a process of a node must be allowed to open: about thirty are its own, the rest is for handlers.
NEEDED = 64


def fill_standard() -> None:
    """Open /dev/null for each of stdin, stdout and stderr that is closed.

    Otherwise shared memory or a connection would get their numbers, and what C code prints would be written into it.
    The lowest free descriptor is always the one that is opened (open(2)).
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: PLR2004
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for the process's life
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def check_limit() -> None:
    """Raise ConfigurationError where so few files may be open that jobs could be claimed and not be settled."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < NEEDED:
        raise ConfigurationError(
            f"the limit of open files is {limit}: a process of a node needs {NEEDED}, and what its handlers open; "
            "raise it with `ulimit -n`, or LimitNOFILE= in the unit"
        )
