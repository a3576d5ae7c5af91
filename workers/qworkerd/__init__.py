"""The processes behind the `qworker` command: supervisor, worker, scheduler and the command itself."""
