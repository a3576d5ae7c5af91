"""The demo: a database, a node, and the application examples/stdlib_index as `jobs`."""
