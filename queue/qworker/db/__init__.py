"""The database layer of the client: connections, the pool, statements, errors."""
