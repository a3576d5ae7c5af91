"""Checks the file descriptors: the three standard ones, and the limit of open files."""

import os
import resource
import sys

from qworker.errors import ConfigurationError

#: Minimum limit of open files: a process of a node uses about thirty descriptors, handlers use the rest.
MIN_OPEN_FILES = 64


def fill_standard() -> None:
    """Open /dev/null for each of stdin, stdout and stderr that is closed.

    The process that started the node or a handler may have closed them. A connection or shared memory would then get
    their numbers, and output would be written to it. open(2) always returns the lowest free descriptor.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: PLR2004
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for the process's life
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def check_limit() -> None:
    """Raise ConfigurationError if the limit of open files is so low that claimed jobs could not be settled."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < MIN_OPEN_FILES:
        raise ConfigurationError(
            f"the limit of open files is {limit}: a process of a node needs {MIN_OPEN_FILES}, plus those of its "
            "handlers; raise it with `ulimit -n`, or LimitNOFILE= in the unit"
        )
