"""A private PostgreSQL server for demos and tests."""

from qworkerd.embedded.binaries import EmbeddedError
from qworkerd.embedded.server import EmbeddedPostgres, free_port, reason

__all__ = ["EmbeddedError", "EmbeddedPostgres", "free_port", "reason"]
