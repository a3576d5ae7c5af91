"""`qworker top`: queues, running jobs, failures, nodes and schedules on a terminal, refreshed every second."""
