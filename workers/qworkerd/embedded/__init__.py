"""A private PostgreSQL server for demos and tests."""

from qworkerd.embedded.binaries import EmbeddedError, reason
from qworkerd.embedded.ports import free_port
from qworkerd.embedded.server import EmbeddedPostgres

__all__ = ["EmbeddedError", "EmbeddedPostgres", "free_port", "reason"]
