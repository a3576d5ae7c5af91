"""Shared memory and pipes of a node's processes."""
