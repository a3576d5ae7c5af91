"""Logging: each event is one line on standard error, with the facts of the running job and without secrets."""

from qworkerd.log.pipeline import ATTEMPTS, LEVELS, bind_process, configure, get, readable

__all__ = ["ATTEMPTS", "LEVELS", "bind_process", "configure", "get", "readable"]
