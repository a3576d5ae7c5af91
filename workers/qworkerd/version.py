"""The version of the installed distribution."""

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "pgqworker"

try:
    VERSION = version(DISTRIBUTION)
except PackageNotFoundError:  # run from the source tree, not installed
    VERSION = "0+source"
