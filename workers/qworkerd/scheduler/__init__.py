"""The process that keeps the node's lease and promotes, rescues, ticks and wakes."""
