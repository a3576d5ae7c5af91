"""Queries, and nodes."""

from tests.lifecycle.conftest import cluster
from tests.qworker.conftest import query

__all__ = ["cluster", "query"]
