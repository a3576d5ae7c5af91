"""The processes behind the `qworker` command: supervisor, worker, scheduler and the command itself."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("pgqworker")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+unknown"
