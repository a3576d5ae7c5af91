"""The demo: a database, a node and an application that show what the rest is for. `jobs` is examples/stdlib_index."""
