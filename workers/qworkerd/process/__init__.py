"""What all processes of a node use: signals, exit codes, descriptors, connections."""
