"""Logging: each event is one line on standard error, with the context of the running job and without secrets."""

from qworkerd.log.pipeline import ATTEMPTS, LEVELS, bind_process, configure, count_events, get, is_console

__all__ = ["ATTEMPTS", "LEVELS", "bind_process", "configure", "count_events", "get", "is_console"]
