"""What every process of a node is made of: signals, exit codes, connections that come back."""
