"""The metrics for Prometheus: names and families of all, and what is the same in the whole cluster."""
