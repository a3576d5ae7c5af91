"""The scheduler process: it keeps the node's lease, promotes, rescues and enqueues jobs, and wakes workers."""
