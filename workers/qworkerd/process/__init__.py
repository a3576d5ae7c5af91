"""Signals, exit codes, descriptors and connections, as all processes of a node use them."""
