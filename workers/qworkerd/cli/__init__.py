"""The `qworker` command: options in, calls out; no logic of its own."""
