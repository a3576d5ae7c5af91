"""The `qworker` command: it parses options, calls the other packages, and prints their results."""
