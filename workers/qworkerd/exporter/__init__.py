"""The process that serves metrics and probes over HTTP, without a connection to the database."""
