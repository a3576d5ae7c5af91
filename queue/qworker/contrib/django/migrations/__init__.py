"""Django's migrations: one for each of qworker's own, under the same name."""
